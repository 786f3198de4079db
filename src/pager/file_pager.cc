// FilePager: clusters through buffers. Invariants: see file_pager.h.
#include "pager/file_pager.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/check.h"

namespace enchilada {
namespace {

std::uint64_t pages_of(const PagerHandle& handle) {
  return std::atomic_ref<std::uint64_t>(const_cast<std::uint64_t&>(handle.pages))
      .load(std::memory_order_relaxed);
}

}  // namespace

class FilePager::Lease {
 public:
  explicit Lease(FilePager& pager) NO_THREAD_SAFETY_ANALYSIS : buffer_(pick(pager)) {}
  ~Lease() NO_THREAD_SAFETY_ANALYSIS { buffer_.lock.unlock(); }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  [[nodiscard]] std::byte* data() const { return buffer_.data; }

 private:
  static Buffer& pick(FilePager& pager) NO_THREAD_SAFETY_ANALYSIS {
    for (Buffer& buffer : pager.buffers_) {
      if (buffer.lock.try_lock()) return buffer;
    }
    pager.buffers_[0].lock.lock();
    return pager.buffers_[0];
  }
  Buffer& buffer_;
};

FilePager::FilePager(PhysicalMemory& phys, VmCounters& counters, Arena& arena)
    : phys_(phys), counters_(counters) {
  constexpr std::size_t kBytes = kClusterPages * kPageSize;
  auto* const memory = static_cast<std::byte*>(arena.allocate(kBytes * buffers_.size()));
  for (std::size_t i = 0; memory != nullptr && i < buffers_.size(); ++i)
    buffers_[i].data = memory + i * kBytes;
}

PagerRun FilePager::has_page(const PagerHandle& handle, PageIndex index, PageCount max_before,
                             PageCount max_after) {
  const std::uint64_t pages = pages_of(handle);
  if (index.value() >= pages) return {};
  return {true, std::min(max_before, PageCount{index.value()}),
          std::min(max_after, PageCount{pages - 1 - index.value()})};
}

bool FilePager::find_least(const PagerHandle& handle, PageIndex from, PageIndex* found) {
  if (from.value() >= pages_of(handle)) return false;
  *found = from;
  return true;
}

PagerReturn FilePager::get_pages(PagerHandle& handle, PageIndex first, std::span<const FrameNumber> frames) {
  if (!ready() || first.value() + frames.size() > pages_of(handle)) return PagerReturn::kFail;
  FileStore& store = store_of(handle);
  for (std::size_t at = 0; at < frames.size(); at += kClusterPages) {
    const std::size_t n = std::min(kClusterPages, frames.size() - at);
    const PagerReturn verdict = get_cluster(store, first + PageCount{at}, frames.subspan(at, n));
    if (verdict != PagerReturn::kOk) return verdict;
  }
  return PagerReturn::kOk;
}

PagerReturn FilePager::get_cluster(FileStore& store, PageIndex first, std::span<const FrameNumber> frames) {
  const Lease lease(*this);
  const std::uint64_t offset = first.value() << kPageShift;
  const std::uint64_t wanted = frames.size() * kPageSize;
  const std::uint64_t size = store.size().value();
  const std::size_t there = static_cast<std::size_t>(size <= offset ? 0 : std::min(wanted, size - offset));
  count(counters_.vnodein);
  if (!store.read(ByteCount{offset}, {lease.data(), there})) {
    count(counters_.io_errors);
    return PagerReturn::kError;
  }
  std::memset(lease.data() + there, 0, wanted - there);
  for (std::size_t i = 0; i < frames.size(); ++i) {
    phys_.with_frames({frames[i], PageCount{1}}, Access::kWrite,
                      [&](std::byte* bytes) { std::memcpy(bytes, lease.data() + i * kPageSize, kPageSize); });
  }
  count(counters_.vnodepgsin, frames.size());
  return PagerReturn::kOk;
}

void FilePager::put(std::span<PutRequest> requests) {
  while (!requests.empty()) {
    std::size_t n = 1;
    while (n < requests.size() && n < kClusterPages && requests[n].handle == requests[0].handle &&
           requests[n].index == requests[0].index + PageCount{n}) {
      ++n;
    }
    put_run(requests.first(n));
    requests = requests.subspan(n);
  }
}

void FilePager::put_run(std::span<PutRequest> run) {
  FileStore& store = store_of(*run[0].handle);
  const std::uint64_t offset = run[0].index.value() << kPageShift;
  const std::uint64_t size = store.size().value();
  PagerReturn verdict = PagerReturn::kFail;
  if (offset >= size) {
    verdict = PagerReturn::kBad;  // a page beyond the end belongs to nobody
  } else if (ready()) {
    const Lease lease(*this);
    for (std::size_t i = 0; i < run.size(); ++i) {
      phys_.with_frames({run[i].frame, PageCount{1}}, Access::kRead, [&](std::byte* bytes) {
        std::memcpy(lease.data() + i * kPageSize, bytes, kPageSize);
      });
    }
    const std::uint64_t length = std::min<std::uint64_t>(run.size() * kPageSize, size - offset);
    const bool good = store.write(ByteCount{offset}, {lease.data(), static_cast<std::size_t>(length)});
    verdict = good ? PagerReturn::kOk : PagerReturn::kError;
    count(counters_.vnodeout);
    count(good ? counters_.vnodepgsout : counters_.io_errors, good ? run.size() : 1);
  }
  for (PutRequest& request : run) request.verdict = verdict;
}

PagerReturn FilePager::resize(PagerHandle& handle, ByteCount length) {
  return store_of(handle).resize(length) ? PagerReturn::kOk : PagerReturn::kFail;
}

ByteCount FilePager::length(const PagerHandle& handle) const {
  return store_of(handle).size();
}

// Files are neither collapsed nor split.
void FilePager::transfer(PagerHandle&, PageIndex, PageCount, PagerHandle&) {
  CHECK(false);
}
void FilePager::split(PagerHandle&, PageIndex, PageCount, PagerHandle&) {
  CHECK(false);
}

}  // namespace enchilada
