// The conformance suite over the host machine, on both transports, and with the contents of whole runs.
#include "support/pmap_conformance.h"

#include "host_fixture.h"

namespace enchilada {
namespace {

template <HostTransport transport>
class HostUnderTest {
 public:
  explicit HostUnderTest(PageCount frames) : rig_(frames, transport) {
    thread_ = rig_.pins->register_thread();
    set_fault_hook(nullptr);
  }
  PmapSystem& pmaps() { return *rig_.machine; }
  PhysicalMemory& phys() { return *rig_.machine; }
  TestSpace create_space(PageCount pages) {
    const VirtRange range = rig_.pages(next_page_, pages.value());
    next_page_ += pages.value() + 3;
    return {rig_.machine->create_pmap(), range};
  }
  bool load(Pmap&, VirtAddr at, std::uint8_t* value) {
    return probe_load(reinterpret_cast<const void*>(at.value()), value) != 0;
  }
  bool store(Pmap&, VirtAddr at, std::uint8_t value) {
    return probe_store(reinterpret_cast<void*>(at.value()), value) != 0;
  }
  /// A system call uses the frame where it is mapped now (all spaces together are a few hundred pages).
  void pin(FrameNumber frame) {
    for (std::uint64_t page = 0; page < next_page_; ++page) {
      if (rig_.machine->frame_at(rig_.at(page)) != frame) continue;
      const VirtRange range = rig_.pages(page, 1);
      rig_.pins->pin(thread_, {&range, 1});
    }
  }
  void unpin(FrameNumber) { rig_.pins->unpin(thread_); }

 private:
  HostRig rig_;
  unsigned thread_;
  std::uint64_t next_page_ = 500;  // spaces straddle a block of the window index
};

using HostMove = HostUnderTest<HostTransport::kMove>;
using HostCopy = HostUnderTest<HostTransport::kCopy>;
INSTANTIATE_TYPED_TEST_SUITE_P(HostMove, PmapConformance, HostMove);
INSTANTIATE_TYPED_TEST_SUITE_P(HostCopy, PmapConformance, HostCopy);

}  // namespace
}  // namespace enchilada
