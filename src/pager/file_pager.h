// FilePager: the pager of file objects. One serves all files of an engine; a handle's root is the file's
// FileStore.
//
// get: one read per cluster, the rest of the file's last page is zeros. put: one write per run of neighbours,
// never beyond the file's end. A file always has all its pages, so has_page() asks for the length alone, and
// copies cannot be forgotten. Invariants: a page is kOk only if all of it is in the store; nothing is
// allocated after construction; no lock but a buffer's is held across I/O, and the holder of a buffer waits
// for nothing but the store.
#pragma once

#include <array>
#include <cstddef>

#include "base/arena.h"
#include "base/mutex.h"
#include "pager/file_store.h"
#include "vm/phys.h"
#include "vm/vm_meter.h"
#include "vm/vm_pager.h"

namespace enchilada {

class FilePager final : public Pager {
 public:
  static constexpr std::size_t kClusterPages = 16;  // of one buffer, so of one read or write

  FilePager(PhysicalMemory& phys, VmCounters& counters, Arena& arena);

  /// False: the arena was too small for the buffers, and every transfer answers kFail.
  [[nodiscard]] bool ready() const { return buffers_[0].data != nullptr; }
  /// For VmObjectZone::allocate_file().
  [[nodiscard]] static PagerHandle handle_of(FileStore& store) {
    return {&store, to_pages(store.size()).value()};
  }

  [[nodiscard]] PagerRun has_page(const PagerHandle& handle, PageIndex index, PageCount max_before,
                                  PageCount max_after) override;
  PagerReturn get_pages(PagerHandle& handle, PageIndex first, std::span<const FrameNumber> frames) override;
  void put(std::span<PutRequest> requests) override;
  PagerReturn resize(PagerHandle& handle, ByteCount length) override;
  [[nodiscard]] ByteCount length(const PagerHandle& handle) const override;
  void forget(PagerHandle&, PageIndex, PageCount) override {}
  void forget_all(PagerHandle&) override {}
  void transfer(PagerHandle& source, PageIndex offset, PageCount size, PagerHandle& dest) override;
  void split(PagerHandle& source, PageIndex first, PageCount count, PagerHandle& dest) override;
  [[nodiscard]] bool find_least(const PagerHandle& handle, PageIndex from, PageIndex* found) override;

 private:
  struct Buffer {
    Mutex lock;  // unranked
    std::byte* data = nullptr;
  };
  class Lease;  // holds a buffer for a scope
  [[nodiscard]] static FileStore& store_of(const PagerHandle& handle) {
    return *static_cast<FileStore*>(handle.root);
  }
  PagerReturn get_cluster(FileStore& store, PageIndex first, std::span<const FrameNumber> frames);
  void put_run(std::span<PutRequest> run);

  PhysicalMemory& phys_;
  VmCounters& counters_;
  std::array<Buffer, 2> buffers_;
};

}  // namespace enchilada
