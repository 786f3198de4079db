// The formulas of freebsd-vm.md §1.9. Invariants: see vm_thresholds.h.
#include "vm/vm_thresholds.h"

#include <algorithm>
#include <bit>

namespace enchilada {
namespace {

constexpr std::uint64_t kCluster = 32;  // pages of one page-out of the daemon
constexpr std::uint64_t kMaxBsize = 64 << 10;
constexpr std::uint64_t kInterruptFreeMin = 2;
constexpr std::uint64_t kPageoutFreeMin = 2 * kMaxBsize / kPageSize + kInterruptFreeMin;
constexpr std::uint64_t kSmallFree = 6144;  // below it the article's target is half as large
constexpr std::uint64_t kNoCache = 2048;    // up to it the article keeps nothing on the cache queue

/// What FreeBSD's formulas have in common. `least`: free_min before the reserve is added.
PageThresholds with_reserve(std::uint64_t n, std::uint64_t least) {
  PageThresholds t;
  t.interrupt_free_min = kInterruptFreeMin;
  t.pageout_free_min = kPageoutFreeMin;
  t.free_reserved = kCluster + kPageoutFreeMin + n / 768;
  t.free_min = least + t.free_reserved;
  t.free_severe = least / 2 + t.free_reserved;
  return t;
}

/// FreeBSD needs a few megabytes; here memory may be a few dozen pages.
void fit(PageThresholds& t, std::uint64_t n) {
  const std::uint64_t most = std::max<std::uint64_t>(n / 4, 8);
  const std::uint64_t wanted = t.free_target + t.cache_min;
  if (wanted > most) {
    for (std::uint64_t* level : {&t.interrupt_free_min, &t.pageout_free_min, &t.free_reserved, &t.free_severe,
                                 &t.free_min, &t.wakeup, &t.free_target, &t.cache_min, &t.cache_max}) {
      *level = *level * most / wanted;
    }
  }
  t.inactive_target = std::min(t.free_target * 3 / 2, n / 3);
}

}  // namespace

PageThresholds article_thresholds(PageCount granted) {
  const std::uint64_t n = granted.value();
  PageThresholds t = with_reserve(n, n > 1024 ? 4 + (n - 1024) / 200 : 4);
  t.free_target = (n > kSmallFree ? 4 : 2) * t.free_min + t.free_reserved;
  t.cache_min = n > kNoCache ? t.free_target : 0;
  t.cache_max = 2 * t.cache_min;
  t.wakeup = t.free_reserved + t.cache_min;
  t.cache_counts = 1;
  fit(t, n);
  t.background_launder = (t.free_target - t.free_min) / 10;
  return t;
}

PageThresholds modern_thresholds(PageCount granted) {
  const std::uint64_t n = granted.value();
  const std::uint64_t least = n / 200;
  PageThresholds t = with_reserve(n, least);
  t.free_target = std::max(4 * least + t.free_reserved, t.free_min + 1);
  t.wakeup = t.free_target * 9 / 10;
  fit(t, n);
  t.background_launder = (t.free_target - t.free_min) / 10;
  return t;
}

PageThresholds live_thresholds(PageCount granted) {
  const std::uint64_t n = granted.value();
  PageThresholds t;
  t.free_target = std::min(std::clamp<std::uint64_t>(n / 64, 16, 256), std::max<std::uint64_t>(n / 8, 4));
  t.free_min = std::max<std::uint64_t>(t.free_target / 4, 2);
  t.free_severe = t.free_min / 2;
  t.wakeup = t.free_min;
  t.inactive_target = n / 3;
  t.background_launder = (t.free_target - t.free_min) / 10;
  return t;
}

ThresholdRule threshold_rule(ThresholdMode mode) {
  switch (mode) {
    case ThresholdMode::kLive:
      return live_thresholds;
    case ThresholdMode::kArticle:
      return article_thresholds;
    case ThresholdMode::kModern:
      return modern_thresholds;
  }
  return live_thresholds;
}

void CurrentThresholds::set(const PageThresholds& t) {
  const auto words = std::bit_cast<std::array<std::uint64_t, kWords>>(t);
  for (std::size_t i = 0; i < kWords; ++i) words_[i].store(words[i], std::memory_order_relaxed);
}

PageThresholds CurrentThresholds::get() const {
  std::array<std::uint64_t, kWords> words;
  for (std::size_t i = 0; i < kWords; ++i) words[i] = words_[i].load(std::memory_order_relaxed);
  return std::bit_cast<PageThresholds>(words);
}

}  // namespace enchilada
