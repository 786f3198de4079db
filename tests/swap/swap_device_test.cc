// Swap devices: files with all their moods, and the injected faults.
#include "swap/swap_device.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "swap/io_ring.h"
#include "swap_test_support.h"

namespace enchilada {
namespace {

using swap_test::SharedMemory;

struct TempFile {
  explicit TempFile(int flags = 0) {
    char name[] = "/tmp/enchilada_swap_XXXXXX";
    fd = mkostemp(name, flags);
    path = name;
  }
  ~TempFile() {
    if (fd >= 0) close(fd);
    unlink(path.c_str());
  }
  int fd = -1;
  std::string path;
};

void pattern(std::span<std::byte> bytes, unsigned seed) {
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>((i * 31 + seed + i / kPageSize) & 255);
}

void round_trip(int fd, ByteCount offset) {
  FileSwapDevice device(fd, offset, PageCount{256});
  SharedMemory out(64 * kPageSize);
  SharedMemory in(64 * kPageSize);
  pattern(out.span(), 3);
  EXPECT_EQ(device.write(100, out.data(), PageCount{64}), IoResult::kOk);
  EXPECT_EQ(device.calls(), 1u) << "one system call a cluster";
  EXPECT_EQ(device.read(100, in.data(), PageCount{64}), IoResult::kOk);
  EXPECT_EQ(std::memcmp(out.data(), in.data(), out.span().size()), 0);
  const IoSlice scattered[] = {{in.data() + 8 * kPageSize, kPageSize}, {in.data(), 2 * kPageSize}};
  EXPECT_EQ(device.read(101, scattered), IoResult::kOk);
  EXPECT_EQ(std::memcmp(in.data() + 8 * kPageSize, out.data() + kPageSize, kPageSize), 0);
  EXPECT_EQ(std::memcmp(in.data(), out.data() + 2 * kPageSize, 2 * kPageSize), 0);
}

TEST(FileSwapDevice, RoundTrip) {
  TempFile file;
  round_trip(file.fd, ByteCount{3 * kPageSize});
}

TEST(FileSwapDevice, RoundTripDirect) {
  TempFile file(O_DIRECT);
  if (file.fd < 0) GTEST_SKIP() << "no direct I/O here";
  ASSERT_EQ(ftruncate(file.fd, 300 * 4096), 0);
  round_trip(file.fd, ByteCount{0});
}

TEST(FileSwapDevice, RefusesWhatIsOutside) {
  TempFile file;
  FileSwapDevice device(file.fd, ByteCount{0}, PageCount{10});
  SharedMemory buffer(4 * kPageSize);
  EXPECT_EQ(device.write(7, buffer.data(), PageCount{4}), IoResult::kError);
  EXPECT_EQ(device.write(~std::uint64_t{0}, buffer.data(), PageCount{1}), IoResult::kError);
  EXPECT_EQ(device.read(2, buffer.data(), PageCount{1}), IoResult::kError) << "the file is shorter";
}

TEST(FileSwapDevice, ReopensOnce) {
  TempFile file;
  struct Context {
    const char* path;
    int times;
  } context{file.path.c_str(), 0};
  const auto reopen = [](void* c) {
    auto* ctx = static_cast<Context*>(c);
    ++ctx->times;
    return open(ctx->path, O_RDWR);
  };
  FileSwapDevice device(dup(file.fd), ByteCount{0}, PageCount{10}, {reopen, &context});
  close(device.fd());
  SharedMemory buffer(kPageSize);
  EXPECT_EQ(device.write(0, buffer.data(), PageCount{1}), IoResult::kOk);
  EXPECT_EQ(context.times, 1);
  close(device.fd());
  FileSwapDevice hopeless(device.fd(), ByteCount{0}, PageCount{10});
  EXPECT_EQ(hopeless.write(0, buffer.data(), PageCount{1}), IoResult::kError);
}

TEST(FileSwapDevice, FullDiskIsNoSpace) {
  const int fd = open("/dev/full", O_RDWR);
  if (fd < 0) GTEST_SKIP();
  FileSwapDevice device(fd, ByteCount{0}, PageCount{10});
  SharedMemory buffer(kPageSize);
  EXPECT_EQ(device.write(0, buffer.data(), PageCount{1}), IoResult::kNoSpace);
  close(fd);
}

std::uint64_t space_of(const TempFile& file) {
  struct stat st {};
  EXPECT_EQ(fstat(file.fd, &st), 0);
  return static_cast<std::uint64_t>(st.st_blocks) * 512;
}

TEST(FileSwapDevice, ReservesSpaceAheadOfWrites) {
  constexpr std::uint64_t kPages = 2048;
  TempFile file;
  ASSERT_EQ(ftruncate(file.fd, kPages * kPageSize), 0);
  if (fallocate(file.fd, FALLOC_FL_KEEP_SIZE, 0, kPageSize) != 0) GTEST_SKIP() << "not on this file system";
  FileSwapDevice device(file.fd, ByteCount{0}, PageCount{kPages});
  SharedMemory buffer(kPageSize);
  ASSERT_EQ(device.write(0, buffer.data(), PageCount{1}), IoResult::kOk);
  const std::uint64_t once = space_of(file);
  EXPECT_GE(once, std::uint64_t{4} << 20);
  ASSERT_EQ(device.write(700, buffer.data(), PageCount{1}), IoResult::kOk);
  EXPECT_EQ(space_of(file), once) << "there was space already";
  ASSERT_EQ(device.write(kPages - 1, buffer.data(), PageCount{1}), IoResult::kOk);
  struct stat st {};
  ASSERT_EQ(fstat(file.fd, &st), 0);
  EXPECT_EQ(st.st_size, static_cast<off_t>(kPages * kPageSize)) << "never beyond the device";
}

// ---- Reads beside other work ----

/// A file that is written behind, and what was written there.
struct AsyncRig {
  /// Begins to write page `page` with pattern `page`, from its place in `contents`.
  bool begin(std::uint64_t page) {
    std::byte* const at = contents.data() + page * kPageSize;
    pattern({at, kPageSize}, static_cast<unsigned>(page + 1));
    return device.begin_write(page, {at, kPageSize}, orders[page]);
  }
  bool page_is_right(std::uint64_t page) {
    SharedMemory to(kPageSize);
    return device.read(page, to.data(), PageCount{1}) == IoResult::kOk &&
           std::memcmp(to.data(), contents.data() + page * kPageSize, kPageSize) == 0;
  }
  static constexpr std::uint64_t kPages = 64;
  TempFile file;
  test::MappedMemory contents{kPages * kPageSize};
  AsyncWrites writes;
  FileSwapDevice device{file.fd, ByteCount{0}, PageCount{kPages}, {nullptr, nullptr}, nullptr, &writes};
  std::array<AsyncWrite, kPages> orders;
};

TEST(AsyncWrite, ManyAtOnceAllArrive) {
  AsyncRig rig;
  for (std::uint64_t page = 0; page < AsyncRig::kPages; ++page) ASSERT_TRUE(rig.begin(page)) << page;
  for (std::uint64_t page = AsyncRig::kPages; page-- > 0;) {
    rig.device.finish_write(rig.orders[page]);
    EXPECT_EQ(rig.orders[page].state(), AsyncWrite::State::kDone);
    EXPECT_TRUE(rig.page_is_right(page));
  }
}

TEST(AsyncWrite, CollectingEndsWhatHasEnded) {
  AsyncRig rig;
  ASSERT_TRUE(rig.begin(3));
  for (int i = 0; i < 10'000 && rig.orders[3].state() == AsyncWrite::State::kUnderWay; ++i) {
    usleep(1000);
    rig.device.collect_writes();
  }
  EXPECT_EQ(rig.orders[3].state(), AsyncWrite::State::kDone);
}

TEST(AsyncWrite, BeyondTheEndOrWithoutAFileNothingIsBegun) {
  AsyncRig rig;
  AsyncWrite order;
  EXPECT_FALSE(rig.device.begin_write(64, {rig.contents.data(), kPageSize}, order));
  FileSwapDevice closed(-1, ByteCount{0}, PageCount{64}, {nullptr, nullptr}, nullptr, &rig.writes);
  EXPECT_FALSE(closed.begin_write(0, {rig.contents.data(), kPageSize}, order));
  EXPECT_NE(order.state(), AsyncWrite::State::kUnderWay);
}

TEST(AsyncWrite, ThreadsFetchEachOthersAnswers) {
  AsyncRig rig;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 50; ++round) {
        for (std::uint64_t page = t; page < AsyncRig::kPages; page += 8) wrong += rig.begin(page) ? 0 : 1;
        rig.device.collect_writes();
        for (std::uint64_t page = t; page < AsyncRig::kPages; page += 8) {
          rig.device.finish_write(rig.orders[page]);
          wrong += rig.orders[page].state() == AsyncWrite::State::kDone ? 0 : 1;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0);
}

TEST(AsyncWrite, AForkedChildMakesAContextOfItsOwn) {
  AsyncRig rig;
  ASSERT_TRUE(rig.begin(1));
  rig.device.finish_write(rig.orders[1]);
  const pid_t child = fork();
  if (child == 0) {
    rig.writes.forget_after_fork();
    bool good = rig.begin(2);
    if (good) rig.device.finish_write(rig.orders[2]);
    good = good && rig.orders[2].state() == AsyncWrite::State::kDone && rig.page_is_right(2);
    _exit(good ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  ASSERT_TRUE(rig.begin(5));
  rig.device.finish_write(rig.orders[5]);
  EXPECT_TRUE(rig.page_is_right(5) && rig.page_is_right(1));
}

/// A file of 64 pages with a pattern, read through rings.
struct RingRig {
  RingRig() {
    pattern(contents.span(), 9);
    EXPECT_EQ(device.write(0, contents.data(), PageCount{64}), IoResult::kOk);
  }
  IoResult read(std::uint64_t page, const IoSlice& to, FunctionRef<void()> work) {
    SwapRead order;
    if (!device.begin_read(page, to, order)) return device.read(page, {&to, 1});
    work();
    return device.finish_read(order);
  }
  /// Reads a page; returns whether it was right, and adds to `worked` if the work was done meanwhile.
  bool page_is_right(std::uint64_t page, int* worked) {
    SharedMemory to(kPageSize);
    const IoSlice slice{to.data(), kPageSize};
    return read(page, slice, [&] { ++*worked; }) == IoResult::kOk &&
           std::memcmp(to.data(), contents.data() + page * kPageSize, kPageSize) == 0;
  }
  TempFile file;
  SharedMemory contents{64 * kPageSize};
  IoRings rings{{}};
  FileSwapDevice device{file.fd, ByteCount{0}, PageCount{64}, {nullptr, nullptr}, &rings};
};

bool rings_work_here() {
  RingRig rig;
  int worked = 0;
  return rig.page_is_right(0, &worked) && worked == 1;
}

int close_all_rings() {
  int closed = 0;
  for (int fd = 3; fd < 1024; ++fd) {
    char name[64];
    char target[64] = {};
    std::snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    if (readlink(name, target, sizeof target - 1) > 0 && std::strstr(target, "io_uring") != nullptr) {
      close(fd);
      ++closed;
    }
  }
  return closed;
}

TEST(BegunRead, DoesTheWorkOnceAndReadsRight) {
  if (!rings_work_here()) GTEST_SKIP() << "no io_uring here";
  RingRig rig;
  int worked = 0;
  for (std::uint64_t page = 0; page < 64; ++page) EXPECT_TRUE(rig.page_is_right(page, &worked)) << page;
  EXPECT_EQ(worked, 64);
  SharedMemory to(kPageSize);
  const IoSlice slice{to.data(), kPageSize};
  EXPECT_EQ(rig.read(64, slice, [] {}), IoResult::kError) << "beyond the end";
}

TEST(BegunRead, ManyThreadsShareFewRings) {
  RingRig rig;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      int worked = 0;
      for (std::uint64_t i = 0; i < 400; ++i) wrong += rig.page_is_right((i * 7 + t) % 64, &worked) ? 0 : 1;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0);
}

TEST(BegunRead, OneThreadHasSeveralReadsUnderWay) {
  if (!rings_work_here()) GTEST_SKIP() << "no io_uring here";
  RingRig rig;
  constexpr std::uint64_t kReads = 5;
  SharedMemory to(kReads * kPageSize);
  std::array<SwapRead, kReads> orders;
  for (std::uint64_t i = 0; i < kReads; ++i) {
    ASSERT_TRUE(rig.device.begin_read(i * 9, {to.data() + i * kPageSize, kPageSize}, orders[i]));
  }
  for (std::uint64_t i = kReads; i-- > 0;) {
    EXPECT_EQ(rig.device.finish_read(orders[i]), IoResult::kOk);
    EXPECT_EQ(std::memcmp(to.data() + i * kPageSize, rig.contents.data() + i * 9 * kPageSize, kPageSize), 0);
  }
}

TEST(BegunRead, TwoReadsAreUnderWayAtOnce) {
  if (!rings_work_here()) GTEST_SKIP() << "no io_uring here";
  RingRig rig;
  std::atomic<int> inside{0};
  std::atomic<int> met{0};
  const auto read = [&](std::uint64_t page) {
    SharedMemory to(kPageSize);
    const IoSlice slice{to.data(), kPageSize};
    const IoResult result = rig.read(page, slice, [&] {
      ++inside;
      for (int i = 0; i < 10'000 && inside < 2; ++i) usleep(1000);
      met += inside == 2 ? 1 : 0;
    });
    EXPECT_EQ(result, IoResult::kOk);
    EXPECT_EQ(std::memcmp(to.data(), rig.contents.data() + page * kPageSize, kPageSize), 0);
  };
  std::thread other([&] { read(5); });
  read(40);
  other.join();
  EXPECT_EQ(met, 2);
}

TEST(BegunRead, AForkedChildMakesRingsOfItsOwn) {
  if (!rings_work_here()) GTEST_SKIP() << "no io_uring here";
  RingRig rig;
  int worked = 0;
  ASSERT_TRUE(rig.page_is_right(1, &worked));
  const pid_t child = fork();
  if (child == 0) {
    rig.rings.forget_after_fork();
    int mine = 0;
    bool good = true;
    for (std::uint64_t page = 0; page < 64; ++page) good = rig.page_is_right(page, &mine) && good;
    _exit(good && mine == 64 ? 0 : 1);
  }
  for (std::uint64_t page = 0; page < 64; ++page) EXPECT_TRUE(rig.page_is_right(page, &worked));
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(worked, 65);
}

TEST(BegunRead, AChildThatSharesMemoryMakesNoRings) {
  if (!rings_work_here()) GTEST_SKIP() << "no io_uring here";
  RingRig rig;
  int worked = 0;
  const pid_t child = vfork();
  if (child == 0) _exit(rig.page_is_right(3, &worked) && worked == 0 ? 0 : 1);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  for (std::uint64_t page = 0; page < 64; ++page) EXPECT_TRUE(rig.page_is_right(page, &worked));
  EXPECT_EQ(worked, 64);
}

TEST(BegunRead, GoesOnWithoutRingsWhenSomebodyClosesTheirDescriptors) {
  if (!rings_work_here()) GTEST_SKIP() << "no io_uring here";
  RingRig rig;
  int worked = 0;
  ASSERT_TRUE(rig.page_is_right(1, &worked));
  ASSERT_GT(close_all_rings(), 0);
  for (std::uint64_t page = 0; page < 64; ++page) EXPECT_TRUE(rig.page_is_right(page, &worked));
}

TEST(FaultInjectingSwapDevice, DoesWhatItIsTold) {
  SharedMemory medium(16 * kPageSize);
  SharedMemory buffer(4 * kPageSize);
  MemorySwapDevice disk(medium.span());
  FaultInjectingSwapDevice device(disk);
  device.fail_write_in(2);
  EXPECT_EQ(device.write(0, buffer.data(), PageCount{4}), IoResult::kOk);
  EXPECT_EQ(device.write(0, buffer.data(), PageCount{4}), IoResult::kError);
  EXPECT_EQ(device.write(0, buffer.data(), PageCount{4}), IoResult::kOk);
  device.fail_read_in(1);
  EXPECT_EQ(device.read(0, buffer.data(), PageCount{4}), IoResult::kError);
  device.set_full(true);
  EXPECT_EQ(device.write(0, buffer.data(), PageCount{4}), IoResult::kNoSpace);
  device.set_full(false);
  device.set_corrupt_reads(true);
  EXPECT_EQ(device.read(0, buffer.data(), PageCount{4}), IoResult::kOk);
  EXPECT_EQ(buffer.data()[4 * kPageSize - 1], std::byte{1});
  device.set_corrupt_reads(false);
  device.set_short_writes(true);
  device.fail_write_in(1);
  pattern(buffer.span(), 9);
  EXPECT_EQ(device.write(8, buffer.data(), PageCount{4}), IoResult::kError);
  EXPECT_EQ(std::memcmp(medium.data() + 8 * kPageSize, buffer.data(), 2 * kPageSize), 0);
  EXPECT_EQ(medium.data()[10 * kPageSize + 5], std::byte{0});
  EXPECT_GE(device.injected(), 4u);
}

}  // namespace
}  // namespace enchilada
