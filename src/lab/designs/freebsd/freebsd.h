// FreebsdVm: the engine itself as a design of the laboratory: an adapter, no more. Its reverse map is the
// soft pmap's pv entries; its modes are the engine's.
//
// Invariants: a design's process is a VmMap, its file a VmFile; everything else is the engine's.
#pragma once

#include <map>
#include <string>

#include "lab/vm_design.h"
#include "machine/soft_engine.h"
#include "pager/memory_file.h"
#include "pager/vm_file.h"

namespace enchilada::lab {

class FreebsdVm final : public VmDesign {
 public:
  FreebsdVm(std::string_view name, const DesignOptions& options, const VmModes& modes);
  ~FreebsdVm() override;

  FileId create_file(PageCount pages) override;
  ProcessId spawn() override;
  ProcessId fork(ProcessId parent) override;
  void exec(ProcessId process) override;
  void exit(ProcessId process) override;
  bool map(ProcessId process, const MapCall& call) override;
  bool unmap(ProcessId process, VirtRange range) override;
  bool protect(ProcessId process, VirtRange range, Prot prot) override;
  bool discard(ProcessId process, VirtRange range) override;
  bool remap(ProcessId process, VirtRange from, VirtAddr to) override;
  bool access(ProcessId process, VirtAddr va, Access access, FunctionRef<void(std::byte*)> use) override;
  void reclaim(PageCount frames) override;
  FrameNumber frame_at(ProcessId process, VirtAddr va) override;
  void unmap_page(FrameNumber frame) override;
  unsigned referenced(FrameNumber frame) override;
  void for_each_mapping(FunctionRef<void(const Mapping&)> visit) override;
  void find_mappings(FrameNumber frame, FunctionRef<void(const Mapping&)> visit) override;
  const char* find_error() override;
  std::string_view name() const override { return name_; }
  Hardware& hardware() override { return *engine_.machine().hardware(); }
  KernelAccounts accounts() override;
  std::size_t map_entries(ProcessId process) override { return maps_.at(process.value())->entry_count(); }
  PageCount free_frames() override { return PageCount{engine_.system().at_hand()}; }

  /// What only this design has: object chains.
  [[nodiscard]] SoftEngine& engine() { return engine_; }
  [[nodiscard]] VmMap& map_of(ProcessId process) { return *maps_.at(process.value()); }

 private:
  struct File {
    std::unique_ptr<MemoryFile> store;
    std::unique_ptr<VmFile> file;
  };
  [[nodiscard]] SoftPmap& pmap_of(ProcessId process) {
    return static_cast<SoftPmap&>(map_of(process).pmap());
  }
  ProcessId adopt(std::unique_ptr<VmMap> map);
  void drop(ProcessId process);

  const std::string name_;
  SoftEngine engine_;
  std::vector<File> files_;
  std::map<std::uint32_t, std::unique_ptr<VmMap>> maps_;
  std::map<SpaceId, ProcessId> by_space_;
  std::uint32_t next_process_ = 1;
};

}  // namespace enchilada::lab
