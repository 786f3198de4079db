// Private to the swap pager: its buffers, and the gathering of blocks that are given up.
//
// A buffer serves one operation, or it is written behind: its pages are in swap as far as anybody can see
// (their frames are free, their blocks in the metadata), while the device still works on it. Until it is
// settled, reads of its blocks come from the buffer, and a block of it that is given up is only noted, lest
// somebody else's write overtakes ours.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "swap/async_writes.h"
#include "swap/swap_pager.h"

namespace enchilada {

struct SwapPager::Bounce {
  static constexpr std::size_t kRunsBehind = 16;
  /// One contiguous run of blocks that was begun.
  struct Behind {
    BlockRun run;
    std::size_t slot = 0;  // of its first page
    SwapDevice* device = nullptr;
    std::uint64_t device_block = 0;
    AsyncWrite write;
  };

  std::byte* data = nullptr;  // kClusterPages pages
  unsigned number = 0;
  std::array<SwapCopy, kClusterPages> old;          // by page: the copy before
  std::array<SwapCopy, kClusterPages> now;          // by page: the copy after
  std::array<std::uint8_t, kClusterPages> page_of;  // by slot: which page lies there

  std::array<Behind, kRunsBehind> behind;
  std::size_t behind_n = 0;
  std::uint64_t forgotten = 0;         // by slot: its block is to be released in the end (metadata's lock)
  std::atomic<bool> settling = false;  // somebody looks after what is written behind

  [[nodiscard]] std::byte* slot(std::size_t i) const { return data + i * kPageSize; }
  [[nodiscard]] std::span<Behind> runs() { return {behind.data(), behind_n}; }
  [[nodiscard]] bool under_way() {
    for (const Behind& b : runs()) {
      if (b.write.state() == AsyncWrite::State::kUnderWay) return true;
    }
    return false;
  }
};

class SwapPager::BounceLease {
 public:
  explicit BounceLease(SwapPager& pager) : pager_(pager), bounce_(&pager.acquire_bounce()) {}
  ~BounceLease() {
    if (bounce_ != nullptr) pager_.release_bounce(*bounce_);
  }
  BounceLease(const BounceLease&) = delete;
  BounceLease& operator=(const BounceLease&) = delete;
  [[nodiscard]] Bounce& operator*() const { return *bounce_; }
  /// It is written behind: whoever settles it releases it.
  void leave() { bounce_ = nullptr; }

 private:
  SwapPager& pager_;
  Bounce* bounce_;
};

/// Blocks given up one by one go back to the space run by run.
class SwapPager::Releaser {
 public:
  explicit Releaser(SwapPager& pager) : pager_(pager) {}
  ~Releaser() { flush(); }
  Releaser(const Releaser&) = delete;
  Releaser& operator=(const Releaser&) = delete;

  /// The metadata's lock is held, which the analysis cannot see: it does not know whose pager this one's is.
  void add(SwapBlock block) NO_THREAD_SAFETY_ANALYSIS {
    if (!SwapCopy{block}.on_device()) return;
    std::size_t slot = 0;
    if (Bounce* const bounce = pager_.behind_with(block, &slot); bounce != nullptr) {
      bounce->forgotten |= std::uint64_t{1} << slot;
      return;
    }
    if (!run_.empty() && block == run_.first + run_.count) {
      ++run_.count;
      return;
    }
    flush();
    run_ = {block, PageCount{1}};
  }
  void flush() {
    if (!run_.empty()) pager_.space_.release(pager_.holder_, run_);
    run_ = {};
  }

 private:
  SwapPager& pager_;
  BlockRun run_;
};

}  // namespace enchilada
