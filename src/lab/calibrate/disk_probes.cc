// Probes of reads from a disk. The file is removed at once, so that nothing stays behind. Invariants: see
// probes.h.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "lab/calibrate/probes.h"
#include "lab/calibrate/timing.h"

namespace enchilada::lab {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kFileBytes = 32 << 20;
constexpr int kReads = 64;

class File {
 public:
  explicit File(const std::string& folder) {
    std::string name = folder + "/enchilada-calibrate-XXXXXX";
    fd_ = mkostemp(name.data(), O_CLOEXEC);
    if (fd_ < 0) return;
    // A name of /proc opens it again, past the page cache, when its own is gone.
    (void)unlink(name.c_str());
    direct_ = open(("/proc/self/fd/" + std::to_string(fd_)).c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (fd_ >= 0) close(fd_);
    if (direct_ >= 0) close(direct_);
  }
  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] int direct() const { return direct_; }

  /// Written through to the disk, and no page of it in the page cache. False: no room.
  [[nodiscard]] bool fill() const {
    std::mt19937_64 random(1);
    std::vector<std::uint64_t> block((1 << 20) / sizeof(std::uint64_t));
    for (std::uint64_t& word : block) word = random();  // nothing that a disk could leave out
    for (std::size_t at = 0; at < kFileBytes; at += 1 << 20) {
      if (pwrite(fd_, block.data(), 1 << 20, static_cast<off_t>(at)) != 1 << 20) return false;
    }
    return fsync(fd_) == 0 && posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED) == 0;
  }

 private:
  int fd_ = -1;
  int direct_ = -1;
};

struct Free {
  void operator()(void* block) const { std::free(block); }
};

std::optional<double> random_reads(const File& file, std::size_t bytes, unsigned seed) {
  const std::unique_ptr<void, Free> block(std::aligned_alloc(kPage, bytes));
  std::mt19937 random(seed);
  std::uniform_int_distribution<std::size_t> places(0, kFileBytes / bytes - 1);
  std::vector<double> samples;
  for (int i = 0; i < kReads; ++i) {
    const auto at = static_cast<off_t>(places(random) * bytes);
    ssize_t got = 0;
    samples.push_back(time_of([&] { got = pread(file.direct(), block.get(), bytes, at); }));
    if (got != static_cast<ssize_t>(bytes)) return std::nullopt;
  }
  return median_of(std::move(samples));
}

long major_faults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_majflt;
}

/// Only of touches that the system counted as major faults.
std::optional<double> mapped_reads(const File& file) {
  if (posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED) != 0) return std::nullopt;
  void* const start = mmap(nullptr, kFileBytes, PROT_READ, MAP_SHARED, file.fd(), 0);
  if (start == MAP_FAILED) return std::nullopt;
  (void)madvise(start, kFileBytes, MADV_RANDOM);
  std::mt19937 random(3);
  std::uniform_int_distribution<std::size_t> places(0, kFileBytes / kPage - 1);
  std::vector<double> samples;
  for (int i = 0; i < kReads; ++i) {
    const auto* const page = static_cast<const volatile char*>(start) + places(random) * kPage;
    const long before = major_faults();
    const double ns = time_of([&] { (void)*page; });
    if (major_faults() > before) samples.push_back(ns);
  }
  munmap(start, kFileBytes);
  if (samples.size() < kReads / 4) return std::nullopt;
  return median_of(std::move(samples));
}

}  // namespace

DiskReads probe_disk(const std::string& folder) {
  const File file(folder);
  if (file.fd() < 0 || !file.fill()) return {};
  DiskReads reads;
  if (file.direct() >= 0) {
    reads.page = random_reads(file, kPage, 1);
    reads.sixteen = random_reads(file, 16 * kPage, 2);
  }
  reads.major_fault = mapped_reads(file);
  return reads;
}

}  // namespace enchilada::lab
