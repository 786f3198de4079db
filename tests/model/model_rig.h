// ModelRig: an engine on a soft machine and the flat model side by side; every operation goes to both.
//
// Invariants: after each operation the verdicts agree and so do all attributes of all pages; contents agree
// whenever they are read. A verdict that only shortage or a failing disk explains is accepted when the
// configuration allows it, and must have changed nothing. Deterministic from the seed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "flat_model.h"
#include "machine/soft_engine.h"
#include "pager/memory_file.h"
#include "pager/vm_file.h"
#include "random_source.h"

namespace enchilada::model {

/// What a seed decides before the first operation.
struct RigConfig {
  std::uint64_t seed = 1;
  SoftEngineOptions engine{};
  std::uint64_t map_pages = 256;
  std::size_t max_maps = 5;
  unsigned validate_every = 8;
  std::size_t max_wired = 12;       // pages wired at a time, all maps together
  std::uint64_t least_frames = 32;  // the budget never goes below
  bool io_errors = false;           // disks fail now and then
  bool swap_may_fill = false;       // swap is smaller than what may have to go there
  std::size_t metadata_left = 0;    // with the next: so much of the arena is left after creation
  bool metadata_may_end = false;    // the arena is too small for everything
  bool pins = false;        // the machine pins frames now and then (no sharing then: see random_rig.cc)
  bool sharing = true;      // inherit by sharing occurs, and shared mappings of files
  bool time_flies = false;  // so that work in the background falls due
  std::size_t files = 0;
  bool rfork = false;  // processes may have one address space together
  [[nodiscard]] bool memory_may_end() const { return io_errors || swap_may_fill || metadata_may_end; }
};

class ModelRig {
 public:
  explicit ModelRig(const RigConfig& config);
  ~ModelRig();
  ModelRig(const ModelRig&) = delete;
  ModelRig& operator=(const ModelRig&) = delete;

  /// One address space, twice.
  struct Process {
    std::shared_ptr<VmMap> map;  // of several processes after rfork()
    std::shared_ptr<ModelMap> model;
  };

  [[nodiscard]] SoftEngine& engine() { return engine_; }
  [[nodiscard]] const RigConfig& config() const { return config_; }
  [[nodiscard]] std::vector<Process>& processes() { return processes_; }
  [[nodiscard]] Process& process(std::size_t i) { return processes_.at(i); }
  /// How often shortage or a failing disk was the accepted answer.
  struct Accepted {
    std::uint64_t shortage = 0;
    std::uint64_t io_failure = 0;
    std::uint64_t failed_fork = 0;
    std::uint64_t fault_io_error = 0;
    std::uint64_t fault_no_memory = 0;
  };
  [[nodiscard]] const Accepted& accepted() const { return accepted_; }
  /// Nothing has differed so far.
  [[nodiscard]] bool ok() const { return failure_.empty(); }
  [[nodiscard]] const std::string& failure() const { return failure_; }

  /// A file, twice.
  struct File {
    std::unique_ptr<MemoryFile> store;
    std::unique_ptr<VmFile> vnode;
    std::shared_ptr<ModelFile> model;
  };
  [[nodiscard]] std::vector<File>& files() { return files_; }

  // One operation each, on both sides.
  /// Maps `file` from page `first` on: request says where, how long and with which rights.
  KernReturn map_file(Process& p, File& file, std::uint64_t first, bool shared, VmMap::MapRequest request);
  KernReturn sync(Process& p, VirtRange range, VmMap::SyncRequest request);
  KernReturn resize(File& file, std::uint64_t bytes);
  KernReturn map(Process& p, const VmMap::MapRequest& request, VirtAddr* address = nullptr);
  KernReturn remove(Process& p, VirtRange range);
  KernReturn protect(Process& p, VirtRange range, Prot prot);
  KernReturn inherit(Process& p, VirtRange range, Inherit inherit);
  KernReturn advise(Process& p, VirtRange range, Advice advice);
  KernReturn wire(Process& p, VirtRange range, WireKind kind);
  KernReturn unwire(Process& p, VirtRange range, WireKind kind);
  KernReturn remap(Process& p, VirtRange from, VirtRange to, bool keep_source);
  /// The index of the child in processes(), or npos.
  std::size_t fork(std::size_t parent);
  /// rfork(RFMEM): another process with the same address space.
  void share(std::size_t i);
  void exit(std::size_t i);
  FaultResult store(Process& p, VirtAddr page, std::size_t word, std::uint64_t value);
  FaultResult load(Process& p, VirtAddr page, std::size_t word);
  /// Reads the whole page.
  FaultResult check_page(Process& p, VirtAddr page);

  /// Compares all pages that may be read, in all spaces, whole.
  void check_all_contents();
  /// The validators over everything.
  void validate();
  /// Everything exits; then nothing may be left.
  void check_nothing_left();
  /// Wired pages must still be there without a fault.
  void check_wired();

  /// Remembers what happened, for the report of a failure.
  [[gnu::format(printf, 2, 3)]] void note(const char* text, ...);
  [[gnu::format(printf, 2, 3)]] void fail(const char* text, ...);
  /// The last operations, oldest first.
  [[nodiscard]] std::string history() const;

  static constexpr std::size_t npos = ~std::size_t{0};

 private:
  [[nodiscard]] bool explained(KernReturn got) const;
  bool same(const char* what, KernReturn got, KernReturn expected);
  void compare_attributes(Process& p);
  void take_over_wiring(Process& p);
  void compare_page(const VmMap::EntryView& entry, std::uint64_t number, const ModelPage& page);
  bool access_verdict(const char* what, FaultResult got, const ModelPage* page, Access access);
  [[nodiscard]] std::size_t number_of(const Process& p) const;
  void make_files();
  void close_files();
  KernReturn map(Process& p, const VmMap::MapRequest& request, const Origin& origin, VirtAddr* address);
  FaultResult touch(Process& p, VirtAddr page, Access access, FunctionRef<void(std::byte*)> use);
  void compare_words(const char* what, VirtAddr page, Content& content, const Content& seen);

  RigConfig config_;
  SoftEngine engine_;
  std::vector<File> files_;
  std::vector<Process> processes_;
  std::string failure_;
  Accepted accepted_;
  std::vector<std::string> history_;
  std::size_t history_at_ = 0;
};

}  // namespace enchilada::model
