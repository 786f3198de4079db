// The byte array, and which of its frames the engine has.
#include "machine/soft_memory.h"

#include <algorithm>
#include <cstring>

namespace enchilada {
namespace {

constexpr int kGarbage = 0xdb;
// Scattered runs are this many run lengths apart; prime, so that it meets every frame of most sizes.
constexpr std::uint64_t kStride = 7;

}  // namespace

SoftMemory::SoftMemory(Arena& arena, std::byte* bytes, const SoftMemoryOptions& options)
    : options_(options), bytes_(bytes), budget_(options.budget.value()) {
  const auto frames = static_cast<std::size_t>(options.frames.value());
  state_ = arena.allocate_array<std::atomic<bool>>(frames);
  CHECK(state_ != nullptr, frames);
  const std::size_t ordinary = frames - static_cast<std::size_t>(options.device_frames.value());
  for (std::size_t i = 0; i < frames; ++i) new (&state_[i]) std::atomic<bool>(i >= ordinary);
}

bool SoftMemory::is_granted(FrameNumber frame) const {
  return frame.value() < options_.frames.value() && state_[frame.value()].load(std::memory_order_relaxed);
}

FrameRun SoftMemory::device_frames() const {
  const PageCount ordinary = options_.frames - options_.device_frames;
  return {FrameNumber{0} + ordinary, options_.device_frames};
}

FrameRun SoftMemory::next_run(PageCount at_most) {
  const std::uint64_t frames = options_.frames.value();
  const std::uint64_t longest = std::min(at_most.value(), options_.run_at_most.value());
  if (options_.run_at_most < options_.frames)
    next_ = (next_ + kStride * options_.run_at_most.value()) % frames;
  std::uint64_t first = next_;
  for (std::uint64_t looked = 0; state_[first].load(std::memory_order_relaxed); ++looked) {
    if (looked == frames) return {};
    first = (first + 1) % frames;
  }
  std::uint64_t n = 0;
  while (n < longest && first + n < frames && !state_[first + n].load(std::memory_order_relaxed)) ++n;
  next_ = (first + n) % frames;
  return {FrameNumber{static_cast<std::uint32_t>(first)}, PageCount{n}};
}

PageCount SoftMemory::grow(PageCount wanted, FunctionRef<void(FrameRun)> sink) {
  std::uint64_t left = std::min(wanted.value(), options_.grant_at_most.value());
  std::uint64_t given = 0;
  while (left > 0) {
    FrameRun run;
    {
      MutexLock guard(lock_);
      const std::uint64_t have = granted_.load(std::memory_order_relaxed);
      const std::uint64_t limit = std::min(budget(), options_.frames - options_.device_frames).value();
      if (have >= limit) break;
      run = next_run(PageCount{std::min(left, limit - have)});
      if (run.count.value() == 0) break;
      for (std::uint64_t i = 0; i < run.count.value(); ++i) {
        state_[run.first.value() + i].store(true, std::memory_order_relaxed);
      }
      granted_.fetch_add(run.count.value(), std::memory_order_relaxed);
    }
    std::memset(bytes_ + run.first.value() * kPageSize, kGarbage, run.count.value() * kPageSize);
    sink(run);
    left -= run.count.value();
    given += run.count.value();
  }
  return PageCount{given};
}

void SoftMemory::retire(FrameRun run) {
  std::memset(bytes_of(run), kGarbage, run.count.value() * kPageSize);
  MutexLock guard(lock_);
  for (std::uint64_t i = 0; i < run.count.value(); ++i) {
    state_[run.first.value() + i].store(false, std::memory_order_relaxed);
  }
  granted_.fetch_sub(run.count.value(), std::memory_order_relaxed);
}

PageCount SoftMemory::surplus_wanted() const {
  const std::uint64_t have = granted().value();
  return PageCount{have - std::min(have, budget().value())};
}

std::byte* SoftMemory::bytes_of(FrameRun run) const {
  CHECK(run.first.value() + run.count.value() <= options_.frames.value(), run.first.value(),
        run.count.value());
  for (std::uint64_t i = 0; i < run.count.value(); ++i) {
    CHECK(is_granted(run.first + PageCount{i}), run.first.value() + i);
  }
  return bytes_ + run.first.value() * kPageSize;
}

void SoftMemory::zero(FrameRun run) {
  std::memset(bytes_of(run), 0, run.count.value() * kPageSize);
}

void SoftMemory::copy(FrameNumber from, FrameNumber to) {
  std::memcpy(bytes_of({to, PageCount{1}}), bytes_of({from, PageCount{1}}), kPageSize);
}

void SoftMemory::with_frames(FrameRun run, Access /*access*/, FunctionRef<void(std::byte*)> use) {
  use(bytes_of(run));
}

}  // namespace enchilada
