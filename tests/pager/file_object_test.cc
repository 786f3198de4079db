// File objects: one page cache for all mappings, private copies, msync, truncation, errors, pressure.
#include "support/soft_rig.h"

namespace enchilada::test {
namespace {

constexpr ByteCount kPage{kPageSize};

/// Page i of the file starts with 1000 + i.
void number_pages(MemoryFile& file) {
  for (std::uint64_t i = 0; to_bytes(PageCount{i}) + ByteCount{8} < file.size(); ++i) {
    const std::uint64_t value = 1000 + i;
    ASSERT_TRUE(file.write(to_bytes(PageCount{i}), std::as_bytes(std::span(&value, 1))));
  }
}

std::uint64_t in_store(MemoryFile& file, std::uint64_t page) {
  std::uint64_t value = 0;
  EXPECT_TRUE(file.read(to_bytes(PageCount{page}), std::as_writable_bytes(std::span(&value, 1))));
  return value;
}

SoftEngineOptions with_frames(std::uint64_t frames) {
  SoftEngineOptions options;
  options.machine.memory.frames = PageCount{frames};
  options.machine.arena_bytes = std::size_t{8} << 20;
  return options;
}

struct FileRig : SoftRig {
  explicit FileRig(ByteCount size, std::uint64_t frames = 256)
      : SoftRig(with_frames(frames)), store_(size), vnode((number_pages(store_), file(store_))) {}
  ~FileRig() { shut_down(); }
  VirtAddr map_file(Process& p, bool shared, std::uint64_t first_page = 0, std::uint64_t pages = 0) {
    VmMap::MapRequest request =
        vnode.mapping(to_bytes(PageCount{first_page}),
                      pages == 0 ? to_bytes(to_pages(vnode.size())) : to_bytes(PageCount{pages}), shared);
    request.hint = kBase;
    return map(p, request);
  }
  MemoryFile& store() { return store_; }

 private:
  MemoryFile store_;

 public:
  VmFile& vnode;
};

TEST(FileObject, MappingsShareOnePageCache) {
  FileRig rig(to_bytes(8_pages));
  auto& a = rig.spawn();
  auto& b = rig.spawn();
  const VirtAddr at = rig.map_file(a, true);
  const VirtAddr there = rig.map_file(b, true);
  EXPECT_EQ(rig.read(a, at + kPage), 1001u);
  const std::uint64_t reads = rig.store().reads();
  EXPECT_EQ(rig.read(b, there + kPage), 1001u);
  EXPECT_EQ(rig.store().reads(), reads) << "the page was in memory";
  ASSERT_EQ(rig.write(a, at + kPage, 7), FaultResult::kResolved);
  EXPECT_EQ(rig.read(b, there + kPage), 7u);
  EXPECT_EQ(in_store(rig.store(), 1), 1001u) << "nothing is written before it must be";
  const std::uint64_t reads_so_far = rig.store().reads();
  rig.check();
  // Clean and dirty pages outlive every mapping.
  rig.exit(a);
  rig.exit(b);
  EXPECT_GT(rig.vnode.resident().value(), 0u);
  auto& c = rig.spawn();
  EXPECT_EQ(rig.read(c, rig.map_file(c, true) + kPage), 7u);
  EXPECT_EQ(rig.store().reads(), reads_so_far);
}

TEST(FileObject, APrivateMappingSeesTheFileUntilItWrites) {
  FileRig rig(to_bytes(8_pages));
  auto& a = rig.spawn();
  auto& b = rig.spawn();
  const VirtAddr at = rig.map_file(a, false);
  const VirtAddr shared = rig.map_file(b, true);
  EXPECT_EQ(rig.objects(), 1u) << "mapping makes no object";
  EXPECT_EQ(rig.read(a, at), 1000u);
  EXPECT_EQ(rig.objects(), 1u) << "nor does reading";
  ASSERT_EQ(rig.write(b, shared, 5), FaultResult::kResolved);
  EXPECT_EQ(rig.read(a, at), 5u);
  ASSERT_EQ(rig.write(a, at, 6), FaultResult::kResolved);
  EXPECT_EQ(rig.objects(), 2u) << "B of the article: what was copied from the file";
  EXPECT_EQ(rig.depth_at(a, at), 2u);
  EXPECT_EQ(rig.read(b, shared), 5u);
  ASSERT_EQ(rig.write(b, shared, 8), FaultResult::kResolved);
  EXPECT_EQ(rig.read(a, at), 6u);
  EXPECT_EQ(rig.read(a, at + kPage), 1001u);
  rig.check();
  EXPECT_EQ(a.sync({at, at + to_bytes(8_pages)}, {}), KernReturn::kSuccess);
  EXPECT_EQ(in_store(rig.store(), 0), 8u) << "private copies never reach the file";
}

TEST(FileObject, TheWholeFilePrivatelyCopiedStaysAboveTheFile) {
  FileRig rig(to_bytes(3_pages));
  auto& a = rig.spawn();
  const VirtAddr at = rig.map_file(a, false);
  for (std::uint64_t i = 0; i < 3; ++i) {
    ASSERT_EQ(rig.write(a, at + to_bytes(PageCount{i}), i), FaultResult::kResolved);
  }
  rig.check();
  auto& child = rig.fork(a);
  ASSERT_EQ(rig.write(child, at, 50), FaultResult::kResolved);
  EXPECT_EQ(rig.read(a, at), 0u);
  rig.exit(a);
  EXPECT_EQ(rig.read(child, at), 50u);
  EXPECT_EQ(rig.read(child, at + kPage), 1u);
  EXPECT_EQ(rig.counters().object_bypasses.load() + rig.counters().object_collapses.load(), 1u)
      << "the shadows became one, the file stayed";
  EXPECT_EQ(in_store(rig.store(), 0), 1000u);
}

TEST(FileObject, BeyondTheEndIsOutOfBoundsAndTheLastPageEndsInZeros) {
  FileRig rig(to_bytes(2_pages) + ByteCount{100});
  auto& a = rig.spawn();
  for (const bool shared : {true, false}) {
    const VirtAddr at = rig.map_file(a, shared, 0, 6);
    EXPECT_EQ(rig.read(a, at + to_bytes(2_pages)), 1002u);
    EXPECT_EQ(rig.read(a, at + to_bytes(2_pages) + ByteCount{104}), 0u);
    EXPECT_EQ(rig.try_read(a, at + to_bytes(3_pages)), FaultResult::kOutOfBounds);
    EXPECT_EQ(rig.write(a, at + to_bytes(5_pages), 1), FaultResult::kOutOfBounds);
    rig.check();
  }
}

TEST(FileObject, SyncWritesDirtyPagesAndLeavesThemMapped) {
  FileRig rig(to_bytes(40_pages));
  auto& a = rig.spawn();
  const VirtAddr at = rig.map_file(a, true);
  for (std::uint64_t i = 0; i < 40; ++i) {
    ASSERT_EQ(rig.write(a, at + to_bytes(PageCount{i}), i), FaultResult::kResolved);
  }
  const std::uint64_t before = rig.store().writes();
  EXPECT_EQ(a.sync({at, at + to_bytes(40_pages)}, {}), KernReturn::kSuccess);
  EXPECT_LE(rig.store().writes() - before, 3u) << "in clusters";
  for (std::uint64_t i = 0; i < 40; ++i) EXPECT_EQ(in_store(rig.store(), i), i);
  EXPECT_EQ(a.sync({at, at + to_bytes(40_pages)}, {}), KernReturn::kSuccess);
  EXPECT_LE(rig.store().writes() - before, 3u) << "all clean";
  const std::uint64_t faults = rig.counters().vm_faults.load();
  for (std::uint64_t i = 0; i < 40; ++i) EXPECT_EQ(rig.read(a, at + to_bytes(PageCount{i})), i);
  EXPECT_EQ(rig.counters().vm_faults.load(), faults) << "still mapped";
  // A write after it makes the page dirty again.
  ASSERT_EQ(rig.write(a, at, 99), FaultResult::kResolved);
  EXPECT_EQ(a.sync({at, at + kPage}, {}), KernReturn::kSuccess);
  EXPECT_EQ(in_store(rig.store(), 0), 99u);
  rig.check();
}

TEST(FileObject, SyncKnowsHolesTheEntryAndWiredMemory) {
  FileRig rig(to_bytes(8_pages));
  auto& a = rig.spawn();
  const VirtAddr at = rig.map_file(a, true);
  ASSERT_EQ(rig.write(a, at + to_bytes(7_pages), 3), FaultResult::kResolved);
  EXPECT_EQ(a.sync({at + kPage, at + kPage}, {}), KernReturn::kSuccess);
  EXPECT_EQ(in_store(rig.store(), 7), 3u) << "length 0: the whole entry";
  EXPECT_EQ(a.sync({at, at + to_bytes(9_pages)}, {}), KernReturn::kInvalidAddress);
  ASSERT_EQ(a.wire({at, at + kPage}), KernReturn::kSuccess);
  EXPECT_EQ(a.sync({at, at + to_bytes(8_pages)}, {.invalidate = true}), KernReturn::kInvalidArgument);
  EXPECT_EQ(a.sync({at, at + to_bytes(8_pages)}, {}), KernReturn::kSuccess) << "wired pages are written, too";
  rig.check();
}

TEST(FileObject, InvalidateReadsTheFileAgain) {
  FileRig rig(to_bytes(8_pages));
  auto& a = rig.spawn();
  const VirtAddr at = rig.map_file(a, true);
  ASSERT_EQ(rig.write(a, at, 3), FaultResult::kResolved);
  EXPECT_EQ(rig.read(a, at + kPage), 1001u);
  EXPECT_EQ(a.sync({at, at + to_bytes(8_pages)}, {.invalidate = true}), KernReturn::kSuccess);
  EXPECT_EQ(rig.vnode.resident(), PageCount{0});
  const std::uint64_t value = 77;
  ASSERT_TRUE(rig.store().write(kPage, std::as_bytes(std::span(&value, 1))));
  EXPECT_EQ(rig.read(a, at), 3u);
  EXPECT_EQ(rig.read(a, at + kPage), 77u);
  rig.check();
}

TEST(FileObject, AFailedWriteKeepsThePageDirty) {
  FileRig rig(to_bytes(8_pages));
  auto& a = rig.spawn();
  const VirtAddr at = rig.map_file(a, true);
  ASSERT_EQ(rig.write(a, at, 3), FaultResult::kResolved);
  rig.store().set_error_rates(0, 1000);
  EXPECT_EQ(a.sync({at, at + kPage}, {.invalidate = true}), KernReturn::kFailure);
  EXPECT_EQ(rig.read(a, at), 3u);
  rig.page_out(rig.vnode.object(), PageIndex{0}, 8_pages);
  EXPECT_EQ(rig.read(a, at), 3u) << "the laundry could not write it either";
  EXPECT_GT(rig.counters().io_errors.load(), 1u);
  rig.check();
  rig.store().set_error_rates(0, 0);
  EXPECT_EQ(a.sync({at, at + kPage}, {}), KernReturn::kSuccess);
  EXPECT_EQ(in_store(rig.store(), 0), 3u);
}

TEST(FileObject, AFailedReadIsAnIoErrorAndCanBeTriedAgain) {
  FileRig rig(to_bytes(8_pages));
  auto& a = rig.spawn();
  const VirtAddr at = rig.map_file(a, false);
  rig.store().set_error_rates(1000, 0);
  EXPECT_EQ(rig.try_read(a, at), FaultResult::kIoError);
  rig.store().set_error_rates(0, 0);
  EXPECT_EQ(rig.read(a, at), 1000u);
  rig.check();
}

TEST(FileObject, TruncatedPagesLeaveAllMappingsAndComeBackAsZeros) {
  FileRig rig(to_bytes(8_pages));
  auto& a = rig.spawn();
  auto& b = rig.spawn();
  const VirtAddr at = rig.map_file(a, true);
  const VirtAddr copy = rig.map_file(b, false);
  for (std::uint64_t i = 0; i < 8; ++i) {
    ASSERT_EQ(rig.write(a, at + to_bytes(PageCount{i}) + ByteCount{200}, 50 + i), FaultResult::kResolved);
    EXPECT_EQ(rig.read(b, copy + to_bytes(PageCount{i})), 1000 + i);
  }
  ASSERT_EQ(rig.write(b, copy + to_bytes(6_pages), 9), FaultResult::kResolved);
  ASSERT_EQ(rig.vnode.resize(to_bytes(3_pages) + ByteCount{100}), KernReturn::kSuccess);
  rig.check();
  EXPECT_EQ(rig.read(a, at + to_bytes(3_pages)), 1003u);
  EXPECT_EQ(rig.read(a, at + to_bytes(3_pages) + ByteCount{200}), 0u) << "behind the end";
  for (const std::uint64_t i : {4u, 5u, 6u, 7u}) {
    EXPECT_EQ(rig.try_read(a, at + to_bytes(PageCount{i})), FaultResult::kOutOfBounds);
  }
  EXPECT_EQ(rig.try_read(b, copy + to_bytes(5_pages)), FaultResult::kOutOfBounds);
  EXPECT_EQ(rig.read(b, copy + to_bytes(6_pages)), 9u) << "its own copy";
  ASSERT_EQ(rig.vnode.resize(to_bytes(8_pages)), KernReturn::kSuccess);
  EXPECT_EQ(rig.read(a, at + to_bytes(3_pages) + ByteCount{200}), 0u);
  EXPECT_EQ(rig.read(a, at + to_bytes(5_pages) + ByteCount{200}), 0u);
  EXPECT_EQ(rig.read(b, copy + to_bytes(5_pages)), 0u);
  rig.check();
}

// FreeBSD's mlock_test: a locked mapping is truncated and extended again.
TEST(FileObject, TruncatingALockedMappingLeavesNoPageBehind) {
  FileRig rig(to_bytes(4_pages));
  auto& a = rig.spawn();
  const VirtAddr at = rig.map_file(a, true);
  ASSERT_EQ(a.wire({at, at + to_bytes(4_pages)}), KernReturn::kSuccess);
  ASSERT_EQ(rig.vnode.resize(ByteCount{0}), KernReturn::kSuccess);
  EXPECT_EQ(rig.counters().wire_count.load(), 0u);
  EXPECT_EQ(rig.try_read(a, at), FaultResult::kOutOfBounds);
  ASSERT_EQ(rig.vnode.resize(to_bytes(4_pages)), KernReturn::kSuccess);
  EXPECT_EQ(rig.read(a, at), 0u);
  rig.check();
  EXPECT_EQ(a.unwire({at, at + to_bytes(4_pages)}), KernReturn::kSuccess);
  rig.check();
}

TEST(FileObject, MemoryForAFewPagesServesALargeFile) {
  FileRig rig(to_bytes(400_pages), 64);
  auto& a = rig.spawn();
  const VirtAddr at = rig.map_file(a, true);
  const VirtAddr own = rig.map_file(a, false);
  for (std::uint64_t i = 0; i < 400; ++i) {
    ASSERT_EQ(rig.write(a, at + to_bytes(PageCount{i}) + ByteCount{8}, i), FaultResult::kResolved);
    if (i % 3 != 0) continue;
    ASSERT_EQ(rig.write(a, own + to_bytes(PageCount{i}), 5 * i), FaultResult::kResolved);
  }
  rig.check();
  for (std::uint64_t i = 0; i < 400; ++i) {
    ASSERT_EQ(rig.read(a, at + to_bytes(PageCount{i}) + ByteCount{8}), i);
    ASSERT_EQ(rig.read(a, own + to_bytes(PageCount{i})), i % 3 == 0 ? 5 * i : 1000 + i);
  }
  rig.check();
  EXPECT_GT(rig.counters().vnodepgsout.load(), 300u) << "dirty pages were laundered to the file";
  EXPECT_GT(rig.counters().swappgsout.load(), 50u) << "and private copies to swap";
  EXPECT_GT(rig.counters().readahead_pages.load(), 100u);
}

TEST(FileObject, ClosingAndTheLastUnmappingWriteWhatIsDirty) {
  FileRig rig(to_bytes(4_pages));
  auto& a = rig.spawn();
  const VirtAddr at = rig.map_file(a, true);
  ASSERT_EQ(rig.write(a, at, 3), FaultResult::kResolved);
  VmFile& vnode = rig.vnode;
  rig.close(vnode);
  EXPECT_EQ(in_store(rig.store(), 0), 1000u);
  EXPECT_EQ(rig.read(a, at), 3u);
  ASSERT_EQ(a.remove({at, at + to_bytes(4_pages)}), KernReturn::kSuccess);
  EXPECT_EQ(in_store(rig.store(), 0), 3u);
}

TEST(FileObject, ForkSharesSharedMappingsAndCopiesPrivateOnes) {
  FileRig rig(to_bytes(4_pages));
  auto& a = rig.spawn();
  const VirtAddr shared = rig.map_file(a, true);
  const VirtAddr own = rig.map_file(a, false);
  ASSERT_EQ(rig.write(a, own, 1), FaultResult::kResolved);
  auto& child = rig.fork(a);
  ASSERT_EQ(rig.write(child, shared, 2), FaultResult::kResolved);
  ASSERT_EQ(rig.write(child, own, 3), FaultResult::kResolved);
  EXPECT_EQ(rig.read(a, shared), 2u);
  EXPECT_EQ(rig.read(a, own), 1u);
  EXPECT_EQ(rig.read(child, own + kPage), 1001u);
  rig.check();
  // A shared mapping that is inherited as a copy: the child's is a snapshot, the parent's stays the file.
  ASSERT_EQ(a.inherit({shared, shared + to_bytes(4_pages)}, Inherit::kCopy), KernReturn::kSuccess);
  auto& snapshot = rig.fork(a);
  ASSERT_EQ(rig.write(a, shared, 20), FaultResult::kResolved);
  EXPECT_EQ(rig.read(snapshot, shared), 2u);
  EXPECT_EQ(rig.read(child, shared), 20u);
  rig.check();
}

TEST(FileObject, DiscardingAPrivateMappingShowsTheFileAgain) {
  FileRig rig(to_bytes(4_pages));
  auto& a = rig.spawn();
  const VirtAddr own = rig.map_file(a, false);
  const VirtAddr shared = rig.map_file(a, true);
  ASSERT_EQ(rig.write(a, own + kPage, 1), FaultResult::kResolved);
  ASSERT_EQ(rig.write(a, own, 1), FaultResult::kResolved);
  ASSERT_EQ(rig.write(a, shared, 4), FaultResult::kResolved);
  EXPECT_EQ(a.advise({own + kPage, own + to_bytes(2_pages)}, Advice::kDiscard), KernReturn::kSuccess);
  EXPECT_EQ(a.advise({shared, shared + to_bytes(4_pages)}, Advice::kDiscard), KernReturn::kSuccess);
  EXPECT_EQ(rig.read(a, own + kPage), 1001u);
  EXPECT_EQ(rig.read(a, own), 1u);
  EXPECT_EQ(rig.read(a, shared), 4u);
  rig.check();
}

TEST(FileObject, RemappingLongerShowsMoreOfTheFile) {
  FileRig rig(to_bytes(8_pages));
  auto& a = rig.spawn();
  for (const bool shared : {true, false}) {
    const VirtAddr at = rig.map_file(a, shared, 1, 2);
    ASSERT_EQ(rig.write(a, at, 5), FaultResult::kResolved);
    const VirtAddr to{std::uint64_t{2} << 24};
    ASSERT_EQ(a.remap({at, at + to_bytes(2_pages)}, {to, to + to_bytes(4_pages)}, !shared),
              KernReturn::kSuccess);
    EXPECT_EQ(rig.read(a, to), 5u);
    EXPECT_EQ(rig.read(a, to + kPage), 1002u);
    EXPECT_EQ(rig.read(a, to + to_bytes(3_pages)), 1004u);
    if (!shared) {
      EXPECT_EQ(rig.read(a, at + kPage), 1002u) << "what was left behind shows the file";
    }
    rig.check();
    ASSERT_EQ(a.remove(a.bounds()), KernReturn::kSuccess);
  }
}

TEST(FileObject, PhysicalAndDeviceObjectsStayWhereTheyAre) {
  SoftEngineOptions options = with_frames(72);
  options.machine.memory.device_frames = 8_pages;
  SoftRig rig(options);
  VmObjectZone& objects = rig.engine.system().objects();
  auto& a = rig.spawn();
  (void)rig.engine.system().grow(64_pages);
  for (const ObjectKind kind : {ObjectKind::kPhysical, ObjectKind::kDevice}) {
    VmObject* const object = kind == ObjectKind::kPhysical
                                 ? objects.allocate_physical(8_pages)
                                 : objects.allocate_device(rig.engine.machine().memory().device_frames());
    ASSERT_NE(object, nullptr);
    VmMap::MapRequest request;
    request.length = to_bytes(9_pages);
    request.object = object;
    request.shared = true;
    const VirtAddr at = rig.map(a, request);
    request.shared = false;
    const VirtAddr own = rig.map(a, request);
    objects.deallocate(object);
    const FrameNumber frame = object->pages.find(PageIndex{3});
    ASSERT_EQ(rig.write(a, at + to_bytes(3_pages), 33), FaultResult::kResolved);
    EXPECT_EQ(rig.read(a, own + to_bytes(3_pages)), 33u);
    ASSERT_EQ(rig.write(a, own + to_bytes(3_pages), 44), FaultResult::kResolved);
    EXPECT_EQ(rig.try_read(a, at + to_bytes(8_pages)), FaultResult::kOutOfBounds);
    rig.check();
    // Memory for anything else is so short that every page on a queue goes; these do not.
    const VirtAddr heap = rig.map_anonymous(a, 100_pages);
    for (std::uint64_t i = 0; i < 100; ++i) {
      ASSERT_EQ(rig.write(a, heap + to_bytes(PageCount{i}), i), FaultResult::kResolved);
    }
    EXPECT_EQ(object->pages.find(PageIndex{3}), frame);
    EXPECT_EQ(rig.read(a, at + to_bytes(3_pages)), 33u);
    EXPECT_EQ(rig.read(a, own + to_bytes(3_pages)), 44u);
    ASSERT_EQ(a.wire({at, at + kPage}), KernReturn::kSuccess);
    ASSERT_EQ(a.unwire({at, at + kPage}), KernReturn::kSuccess);
    rig.check();
    ASSERT_EQ(a.remove(a.bounds()), KernReturn::kSuccess);
    rig.check();
    EXPECT_EQ(rig.counters().wire_count.load(), 0u);
  }
}

}  // namespace
}  // namespace enchilada::test
