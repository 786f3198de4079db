// Slots of the tree: claiming, fork, exec, requests between siblings, and the recovery of what the dead left.
//
// Every transfer of a slot is one compare-exchange of its owner word (pid, generation, state), so at any
// moment exactly one process owns it, and when that process is dead anybody may take it over. A new owner
// gets a new generation.
#include <asm/unistd.h>

#include <new>

#include "base/check.h"
#include "base/monotonic_clock.h"
#include "base/raw_syscall.h"
#include "runtime/tree/process_probe.h"
#include "runtime/tree/process_tree.h"
#include "runtime/tree/tree_words.h"

namespace enchilada {
namespace {

constexpr std::uint64_t kClaimWaitNs = 2'000'000'000;
constexpr std::uint64_t kForkWaitNs = 50'000'000;
constexpr std::uint64_t kOrphanGraceNs = 2'000'000'000;
constexpr std::uint64_t kRecoveryPeriodNs = 50'000'000;
constexpr std::uint64_t kIdleNs = 1'000'000'000;
constexpr std::uint64_t kRetryNs = 10'000'000;
constexpr std::uint64_t kLeastFrames = 16;
constexpr int kRescueTries = 50;
constexpr std::uint64_t kSmallestRequest = 16;

}  // namespace

// ---- Claiming ----

bool ProcessTree::try_claim(ProcessSlot index, SlotState state) noexcept {
  TreeSlot& slot = at(index);
  std::uint64_t word = slot.owner.load();
  if (words::owner_state(word) != SlotState::kFree) return false;
  const std::uint64_t mine = words::owner(view_.self(), words::owner_generation(word) + 1, state);
  if (!slot.owner.compare_exchange_strong(word, mine)) return false;
  std::uint32_t used = header_->slots_used.load();
  while (used <= index.value() && !header_->slots_used.compare_exchange_weak(used, index.value() + 1)) {
  }
  slot.child_pid.store(0);
  slot.orphaned.store(0);
  slot.used.store(0);
  slot.peak_charge.store(0);
  slot.requested.store(0);
  slot.seen_faults.store(0);
  slot.seen_time.store(0);
  return true;
}

ProcessSlot ProcessTree::find_free(SlotState state) noexcept {
  for (std::uint32_t i = 0; i < kRescueSlot.value(); ++i) {
    if (try_claim(ProcessSlot{i}, state)) return ProcessSlot{i};
  }
  return kNoSlot;
}

ProcessSlot ProcessTree::find_free_or_recover(SlotState state) noexcept {
  ProcessSlot found = find_free(state);
  if (found != kNoSlot) return found;
  if (self_ != kNoSlot) {
    (void)recover_dead();
    return find_free(state);
  }
  // Recovery takes locks in shared memory, which need a name to sign with, and a process without a slot has
  // none: it borrows the one that is kept for this. Somebody else in it is doing the same work.
  for (int i = 0; i < kRescueTries && found == kNoSlot; ++i) {
    if (try_claim(kRescueSlot, SlotState::kAttaching)) {
      identify(kRescueSlot);
      self_ = kRescueSlot;
      (void)recover_dead();
      release_slot();
      return find_free(state);
    }
    (void)recover_slot(kRescueSlot);  // it holds nothing, so this needs no name
    futex_wait_shared(header_->returned, header_->returned.load(), kRetryNs);
    found = find_free(state);
  }
  return found;
}

void ProcessTree::identify(ProcessSlot index) noexcept {
  identify(index, view_.probe(view_.self()));
}

void ProcessTree::identify(ProcessSlot index, const ProcessProbe& me) noexcept {
  TreeSlot& slot = at(index);
  const std::uint32_t generation = words::owner_generation(slot.owner.load());
  slot.start_time.store(words::tagged_start(me.start_time, generation));
  slot.image.store(words::tagged_image(me.start_stack, generation));
  for (std::size_t i = 0; i < slot.name.size(); ++i)
    slot.name[i].store(me.name[i], std::memory_order_relaxed);
}

/// What identify() would find for this process, out of its own slot: /proc takes as long as half a fork.
void ProcessTree::adopt_identity(ProcessSlot index) noexcept {
  const TreeSlot& own = at(self_);
  const std::uint32_t generation = words::owner_generation(own.owner.load());
  ProcessProbe me;
  me.start_time = words::start_of(own.start_time.load(), generation);
  me.start_stack = words::image_of(own.image.load(), generation);
  if (me.start_time == 0) return identify(index);
  for (std::size_t i = 0; i < me.name.size(); ++i) me.name[i] = own.name[i].load(std::memory_order_relaxed);
  identify(index, me);
}

bool ProcessTree::recover_former_image(const ProcessProbe& me) noexcept {
  // What names this pid, beside the slot just claimed, cannot be ours: the former image's slot, or a recovery
  // that its exec cut short, or a dead process's whose pid we got.
  const std::uint32_t pid = view_.self();
  bool found = false;
  for (std::uint32_t i = 0; i < slots_used(); ++i) {
    std::uint64_t word = at(ProcessSlot{i}).owner.load();
    const SlotState state = words::owner_state(word);
    if (words::owner_pid(word) != pid || state == SlotState::kFree || state == SlotState::kForking) continue;
    if (i == self_.value()) continue;
    const std::uint64_t its_start =
        words::start_of(at(ProcessSlot{i}).start_time.load(), words::owner_generation(word));
    const std::uint64_t mine = words::owner(pid, words::owner_generation(word) + 1, SlotState::kRecovering);
    if (!at(ProcessSlot{i}).owner.compare_exchange_strong(word, mine)) continue;
    found = found || (state != SlotState::kRecovering && its_start == me.start_time);
    identify(ProcessSlot{i}, me);
    drop_holdings(ProcessSlot{i});
    empty_slot(ProcessSlot{i}, mine);
  }
  return found;
}

bool ProcessTree::charge_at_least(ProcessSlot index, std::uint64_t least, std::uint64_t timeout_ns) noexcept {
  const std::uint64_t deadline = monotonic_ns() + timeout_ns;
  for (bool first = true;; first = false) {
    const std::uint32_t ticket = header_->returned.load();
    const std::uint64_t have = charged(index).value();
    if (have >= least || have + raise_charge(index, least - have) >= least) return true;
    if (first) {
      if (recover_dead() != 0) continue;
    } else {
      recover_dead_now_and_then();
    }
    const std::uint64_t now = monotonic_ns();
    if (now >= deadline) return false;
    const std::uint64_t missing = least - charged(index).value();
    if (request_frames(PageCount{missing}).value() == 0) return false;
    header_->waiters.store(1);
    futex_wait_shared(header_->returned, ticket, kRetryNs);
  }
}

TreeStatus ProcessTree::claim_slot() noexcept {
  if (self_ != kNoSlot) return TreeStatus::kOk;
  view_.look(header_->pid_namespace, header_->proc_device);
  if (view_.self() == 0) return TreeStatus::kNoNumber;
  const ProcessSlot index = find_free_or_recover(SlotState::kAttaching);
  if (index == kNoSlot) return TreeStatus::kNoSlot;
  const ProcessProbe me = view_.probe(view_.self());
  identify(index, me);
  self_ = index;
  if (!recover_former_image(me)) header_->attached.fetch_add(1, std::memory_order_relaxed);
  const std::uint64_t minimum = config().minimum_frames;
  if (!charge_at_least(index, minimum, kClaimWaitNs) &&
      charged(index).value() < (minimum < kLeastFrames ? minimum : kLeastFrames)) {
    release_slot();
    return TreeStatus::kNoRam;
  }
  return TreeStatus::kOk;
}

void ProcessTree::set_live() noexcept {
  std::uint64_t word = at(self_).owner.load();
  const std::uint64_t live = words::owner(view_.self(), words::owner_generation(word), SlotState::kLive);
  CHECK(words::owner_pid(word) == view_.self(), word);
  at(self_).owner.compare_exchange_strong(word, live);
}

void ProcessTree::release_slot() noexcept {
  if (self_ == kNoSlot) return;
  const ProcessSlot index = self_;
  std::uint64_t word = at(index).owner.load();
  if (words::owner_pid(word) != view_.self()) return;
  drop_holdings(index);  // while the slot still answers for its name: see holder_alive()
  self_ = kNoSlot;
  const std::uint64_t mine =
      words::owner(view_.self(), words::owner_generation(word) + 1, SlotState::kRecovering);
  if (at(index).owner.compare_exchange_strong(word, mine)) empty_slot(index, mine);
}

// ---- Fork ----

ForkTicket ProcessTree::begin_fork(PageCount frames) noexcept {
  const std::uint64_t minimum = config().minimum_frames;
  const std::uint64_t needed = frames.value() > minimum ? frames.value() : minimum;
  const ProcessSlot child = find_free_or_recover(SlotState::kForking);
  if (child == kNoSlot) return {TreeStatus::kNoSlot, kNoSlot, PageCount{0}};
  fork_word_ = at(child).owner.load();
  adopt_identity(child);  // the parent's: it is the owner until the child takes over
  if (!charge_at_least(child, needed, kForkWaitNs)) {
    const std::uint64_t missing = needed - charged(child).value();
    abort_fork(child);
    return {TreeStatus::kNoRam, kNoSlot, PageCount{missing}};
  }
  at(child).used.store(frames.value());
  return {TreeStatus::kOk, child, PageCount{0}};
}

std::uint32_t* ProcessTree::child_pid_word(ProcessSlot child) const noexcept {
  static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));
  return reinterpret_cast<std::uint32_t*>(&at(child).child_pid);
}

void ProcessTree::child_made(ProcessSlot child, std::uint32_t pid) noexcept {
  // The same step as the child's own; whoever comes second finds it done.
  pid = view_.of_child(pid);
  if (pid == 0) return;
  std::uint64_t word = fork_word_;
  const std::uint64_t childs = words::owner(pid, words::owner_generation(word) + 1, SlotState::kAttaching);
  if (at(child).owner.compare_exchange_strong(word, childs)) {
    header_->attached.fetch_add(1, std::memory_order_relaxed);
  }
}

TreeStatus ProcessTree::child_started(ProcessSlot child) noexcept {
  new (&lock_) Mutex(LockRank::kLeaf);  // another thread of the parent may have held it
  view_.look(header_->pid_namespace, header_->proc_device);
  self_ = kNoSlot;
  if (view_.self() == 0) return TreeStatus::kNoNumber;
  self_ = child;
  std::uint64_t word = fork_word_;
  const std::uint64_t mine =
      words::owner(view_.self(), words::owner_generation(fork_word_) + 1, SlotState::kAttaching);
  if (at(child).owner.compare_exchange_strong(word, mine)) {
    header_->attached.fetch_add(1, std::memory_order_relaxed);
  } else if (word != mine) {
    self_ = kNoSlot;
    return TreeStatus::kLost;
  }
  identify(child);
  return TreeStatus::kOk;
}

void ProcessTree::abort_fork(ProcessSlot child) noexcept {
  std::uint64_t word = fork_word_;
  const std::uint64_t mine =
      words::owner(view_.self(), words::owner_generation(word) + 1, SlotState::kRecovering);
  if (!at(child).owner.compare_exchange_strong(word, mine)) return;
  drop_holdings(child);
  empty_slot(child, mine);
}

// ---- Exec ----

void ProcessTree::begin_exec() noexcept {
  if (self_ == kNoSlot) return;
  std::uint64_t word = at(self_).owner.load();
  if (words::owner_pid(word) != view_.self()) return;
  at(self_).owner.compare_exchange_strong(
      word, words::owner(view_.self(), words::owner_generation(word), SlotState::kExecing));
}
void ProcessTree::exec_failed() noexcept {
  if (self_ != kNoSlot && words::owner_pid(at(self_).owner.load()) == view_.self()) set_live();
}

// ---- The dead ----

bool ProcessTree::fork_is_lost(TreeSlot& slot) noexcept {
  // The parent died. Its child may be on the way to child_started(): wait for it as long as it can possibly
  // come.
  const std::uint32_t child = slot.child_pid.load();
  if (child != 0) return view_.probe(child).life == ProcessProbe::Life::kGone;
  const std::uint64_t now = monotonic_ns();
  std::uint64_t since = 0;
  if (slot.orphaned.compare_exchange_strong(since, now)) return false;
  return now - since > kOrphanGraceNs;
}

bool ProcessTree::owner_is_gone(ProcessSlot index, std::uint64_t owner_word) noexcept {
  TreeSlot& slot = at(index);
  const std::uint32_t generation = words::owner_generation(owner_word);
  const std::uint64_t tagged = slot.start_time.load();
  const std::uint64_t start = words::start_of(tagged, generation);
  const std::uint64_t image = words::image_of(slot.image.load(), generation);
  const ProcessProbe probe = view_.probe(words::owner_pid(owner_word));
  bool gone = probe.life == ProcessProbe::Life::kGone;
  if (!gone && start != 0 && probe.start_time != 0 && start != probe.start_time)
    gone = true;  // the pid was reused
  // Another program runs in it (exec), and that one has no business with the old one's frames.
  if (!gone && image != 0 && probe.start_stack != 0 && image != (probe.start_stack & ~std::uint64_t{15}))
    gone = true;
  if (!gone && start == 0 && probe.start_time != 0) {
    std::uint64_t expected = tagged;  // the owner has not come to say who it is; remember it
    slot.start_time.compare_exchange_strong(expected, words::tagged_start(probe.start_time, generation));
  }
  if (!gone) return false;
  return words::owner_state(owner_word) != SlotState::kForking || fork_is_lost(slot);
}

bool ProcessTree::holder_alive(ProcessSlot slot) noexcept {
  if (slot == kLauncher) {
    const ProcessProbe probe = view_.probe(header_->launcher_pid);
    return probe.life != ProcessProbe::Life::kGone && probe.start_time == header_->launcher_start_time;
  }
  const std::uint64_t word = at(slot).owner.load();
  switch (words::owner_state(word)) {
    case SlotState::kFree:
    case SlotState::kForking:
    case SlotState::kRecovering:
      return false;
    case SlotState::kAttaching:
    case SlotState::kLive:
    case SlotState::kExecing:
      return !owner_is_gone(slot, word);
  }
  return true;
}

bool ProcessTree::recover_slot(ProcessSlot index) noexcept {
  std::uint64_t word = at(index).owner.load();
  if (words::owner_state(word) == SlotState::kFree || index == self_) return false;
  if (!owner_is_gone(index, word)) return false;
  const std::uint64_t mine =
      words::owner(view_.self(), words::owner_generation(word) + 1, SlotState::kRecovering);
  if (!at(index).owner.compare_exchange_strong(word, mine)) return false;
  identify(index);
  if (index != kRescueSlot) drop_holdings(index);
  empty_slot(index, mine);
  header_->recovered.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void ProcessTree::drop_holdings(ProcessSlot index) noexcept {
  if (drop_ != nullptr) drop_(drop_context_, index);
}

void ProcessTree::empty_slot(ProcessSlot index, std::uint64_t owner_word) noexcept {
  // Every step can be done again by the next one if this process dies in the middle.
  TreeSlot& slot = at(index);
  fold_counters(slot);
  slot.requested.store(0);
  resolve_journal(index);
  lower_charge(index, charged(index).value());
  std::uint64_t word = owner_word;
  const std::uint64_t empty = words::owner(0, words::owner_generation(owner_word) + 1, SlotState::kFree);
  CHECK(slot.owner.compare_exchange_strong(word, empty), word, owner_word);
}

std::uint32_t ProcessTree::recover_dead() noexcept {
  header_->last_recovery.store(monotonic_ns(), std::memory_order_relaxed);
  std::uint32_t freed = 0;
  for (std::uint32_t i = 0; i < slots_used(); ++i) {
    if (recover_slot(ProcessSlot{i})) ++freed;
  }
  return freed;
}

void ProcessTree::recover_dead_now_and_then() noexcept {
  if (monotonic_ns() - header_->last_recovery.load(std::memory_order_relaxed) > kRecoveryPeriodNs) {
    (void)recover_dead();
  }
}

void ProcessTree::fold_counters(TreeSlot& slot) noexcept {
  // exchange(0), then add: a death in between loses one counter's value and never counts one twice.
  for (std::size_t i = 0; i < kCounterInfoCount; ++i) {
    const CounterInfo& info = kCounterInfo[i];
    const std::uint64_t value = (slot.counters.*info.field).exchange(0, std::memory_order_relaxed);
    if (value == 0) continue;
    if (!info.level) {
      count(header_->ended.*info.field, value);
    } else if (info.field == &VmCounters::peak_resident || info.field == &VmCounters::metadata_bytes) {
      words::raise(header_->ended.*info.field, value);
    }
  }
  TimeHistogram& from = slot.counters.fault_time;
  TimeHistogram& to = header_->ended.fault_time;
  for (std::size_t b = 0; b < TimeHistogram::kBuckets; ++b) {
    const std::uint64_t value = from.buckets[b].exchange(0, std::memory_order_relaxed);
    if (value != 0) count(to.buckets[b], value);
  }
  count(to.sum, from.sum.exchange(0, std::memory_order_relaxed));
  words::raise(to.max, from.max.exchange(0, std::memory_order_relaxed));
}

// ---- Requests between siblings ----

bool ProcessTree::has_siblings() const noexcept {
  for (std::uint32_t i = 0; i < slots_used(); ++i) {
    if (i != self_.value() && words::owner_state(at(ProcessSlot{i}).owner.load()) != SlotState::kFree)
      return true;
  }
  return false;
}

std::uint64_t ProcessTree::could_give(ProcessSlot victim, std::uint64_t my_charge, std::uint64_t frames,
                                      std::uint64_t now) noexcept {
  TreeSlot& slot = at(victim);
  if (words::owner_state(slot.owner.load()) != SlotState::kLive) return 0;
  const std::uint64_t faults = slot.counters.vm_faults.load(std::memory_order_relaxed);
  if (slot.seen_time.load() == 0 || slot.seen_faults.exchange(faults) != faults) slot.seen_time.store(now);
  const std::uint64_t have = charged(victim).value();
  if (have <= config().minimum_frames) return 0;
  const std::uint64_t excess = have - config().minimum_frames;
  if (now - slot.seen_time.load() > kIdleNs) return excess;
  // A busy one is asked only while it has more than the asker would have: so shares become equal and then
  // rest.
  return have > my_charge + frames ? (have - my_charge) / 2 : 0;
}

PageCount ProcessTree::request_frames(PageCount frames) noexcept {
  const std::uint64_t now = monotonic_ns();
  const std::uint64_t my_charge = self_ == kNoSlot ? 0 : charged(self_).value();
  std::uint64_t missing = frames.value() > kSmallestRequest ? frames.value() : kSmallestRequest;
  std::uint64_t asked = 0;
  std::array<std::uint64_t, kMaxProcesses / 64> done{};
  while (missing != 0) {
    std::uint32_t best = kMaxProcesses;
    std::uint64_t best_gives = 0;
    for (std::uint32_t i = 0; i < slots_used(); ++i) {
      if (i == self_.value() || (done[i / 64] >> (i % 64) & 1) != 0) continue;
      const std::uint64_t gives = could_give(ProcessSlot{i}, my_charge, frames.value(), now);
      if (gives > best_gives) {
        best = i;
        best_gives = gives;
      }
    }
    if (best == kMaxProcesses) break;
    done[best / 64] |= std::uint64_t{1} << (best % 64);
    // At least an eighth of what it could give: many small requests would make shares equal only after
    // seconds.
    const std::uint64_t step = missing > best_gives / 8 ? missing : best_gives / 8;
    const std::uint64_t share = step < best_gives ? step : best_gives;
    std::atomic<std::uint32_t>& word = at(ProcessSlot{best}).requested;
    std::uint32_t pending = word.load();
    // What is asked of it already counts: requests do not add up while it works on them.
    while (pending < share && !word.compare_exchange_weak(pending, static_cast<std::uint32_t>(share))) {
    }
    if (pending == 0) futex_wake_shared(word, 1 << 30);
    asked += share;
    missing -= share < missing ? share : missing;
  }
  return PageCount{asked};
}

}  // namespace enchilada
