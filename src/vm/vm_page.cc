// Page: the busy word's slow side and the use history. Invariant: a sleeper is always woken by the unbusy
// that follows.
#include "vm/vm_page.h"

#include "base/mutex.h"

namespace enchilada {

bool Page::try_share() {
  std::uint32_t word = busy.load(std::memory_order_relaxed);
  while ((word & kExclusive) == 0) {
    if (busy.compare_exchange_weak(word, word + 1, std::memory_order_acquire)) return true;
  }
  return false;
}

void Page::unbusy() {
  const std::uint32_t old = busy.exchange(0, std::memory_order_release);
  DCHECK((old & kExclusive) != 0);
  if ((old & kSleepers) != 0) futex_wake(busy, 1 << 30);
}

void Page::unshare() {
  std::uint32_t word = busy.load(std::memory_order_relaxed);
  for (;;) {
    DCHECK((word & kSharers) != 0);
    const bool last = (word & kSharers) == 1;
    if (!busy.compare_exchange_weak(word, last ? 0 : word - 1, std::memory_order_release)) continue;
    if (last && (word & kSleepers) != 0) futex_wake(busy, 1 << 30);
    return;
  }
}

void Page::wait_not_busy() {
  std::uint32_t word = busy.load(std::memory_order_relaxed);
  if ((word & ~kSleepers) == 0) return;
  if ((word & kSleepers) == 0 &&
      !busy.compare_exchange_strong(word, word | kSleepers, std::memory_order_relaxed)) {
    return;  // it changed hands: looking up again is right in any case
  }
  futex_wait(busy, word | kSleepers);
}

void Page::age(unsigned references) {
  const unsigned act = act_count();
  if (references > 0) {
    set_act_count(act + kActAdvance + references);
  } else {
    set_act_count(act - (act < kActDecline ? act : kActDecline));
  }
}

}  // namespace enchilada
