// The tree's segment: making it, joining it, and the RAM budget. Slots and their recovery are in
// tree_slots.cc.
#include "runtime/tree/process_tree.h"

#include <asm/unistd.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <new>

#include "base/check.h"
#include "base/monotonic_clock.h"
#include "base/raw_syscall.h"
#include "runtime/tree/process_probe.h"
#include "runtime/tree/tree_words.h"

namespace enchilada {
namespace {

constexpr std::uint64_t kAbiSize = sizeof(TreeHeader) * 4096 + sizeof(TreeSlot);
constexpr std::uint64_t kSlotsOffset = (sizeof(TreeHeader) + kPageMask) & ~kPageMask;
constexpr std::uint64_t kSwapOffset =
    (kSlotsOffset + kMaxProcesses * sizeof(TreeSlot) + kPageMask) & ~kPageMask;
constexpr std::uint64_t kDefaultMinimum = 128;
constexpr std::uint64_t kRetryNs = 20'000'000;
constexpr long kMapFixedNoReplace = 0x100000;
constexpr long kEexist = -17;

bool failed(long answer) {
  return answer < 0 && answer > -4096;
}

/// Reads decimal numbers separated by colons; true when there are exactly `n` and nothing else.
bool parse_numbers(const char* text, std::uint64_t* out, int n) noexcept {
  for (int i = 0; i < n; ++i) {
    if (*text < '0' || *text > '9') return false;
    std::uint64_t value = 0;
    for (; *text >= '0' && *text <= '9'; ++text) value = value * 10 + static_cast<std::uint64_t>(*text - '0');
    out[i] = value;
    if (*text != (i + 1 < n ? ':' : '\0')) return false;
    ++text;
  }
  return true;
}

char* put_number(char* out, std::uint64_t value) noexcept {
  char digits[20];
  int n = 0;
  do {
    digits[n++] = static_cast<char>('0' + value % 10);
    value /= 10;
  } while (value != 0);
  while (n > 0) *out++ = digits[--n];
  return out;
}

/// Opens /proc/<pid>/fd/<descriptor>.
long open_descriptor_of(std::uint32_t pid, int descriptor, int flags) noexcept {
  char path[48];
  char* p = path;
  for (const char* s = "/proc/"; *s != 0; ++s) *p++ = *s;
  p = put_number(p, pid);
  for (const char* s = "/fd/"; *s != 0; ++s) *p++ = *s;
  p = put_number(p, static_cast<std::uint64_t>(descriptor));
  *p = 0;
  return raw_syscall(__NR_openat, AT_FDCWD, reinterpret_cast<long>(path), flags);
}

std::uint64_t random_word() noexcept {
  std::uint64_t word = 0;
  raw_syscall(__NR_getrandom, reinterpret_cast<long>(&word), sizeof(word), 0);
  return word != 0 ? word : monotonic_ns();
}

std::uint64_t chosen_minimum(const TreeConfig& config) noexcept {
  if (config.minimum_frames != 0) return config.minimum_frames;
  const std::uint64_t share = config.ram_frames / 16;  // small budgets still let a pipeline of programs run
  return share < kDefaultMinimum ? share : kDefaultMinimum;
}

}  // namespace

const char* describe(TreeStatus status) noexcept {
  switch (status) {
    case TreeStatus::kOk:
      return "ok";
    case TreeStatus::kMalformed:
      return "the environment variable ENCHILADA_TREE is damaged";
    case TreeStatus::kUnreachable:
      return "the shared segment of this enchilada run cannot be reached (its descriptor was closed and the "
             "launcher"
             " is gone)";
    case TreeStatus::kMismatch:
      return "the shared segment was made by another version of enchilada";
    case TreeStatus::kAddressTaken:
      return "the address range of the shared segment is in use";
    case TreeStatus::kNoSlot:
      return "too many processes in one enchilada run";
    case TreeStatus::kNoRam:
      return "the RAM budget has no room for another process";
    case TreeStatus::kLost:
      return "this process's share was taken away because its parent died during fork";
    case TreeStatus::kNoNumber:
      return "it is in a PID namespace of its own with another /proc, where it cannot tell which processes "
             "of this enchilada run are alive";
    case TreeStatus::kFileSize:
      return "the limit on the size of files is too small for swap; raise it with 'ulimit -f unlimited'";
    case TreeStatus::kSystem:
      return "a system call failed while setting up the shared segment";
  }
  return "unknown";
}

// ---- Making and joining ----

TreeStatus ProcessTree::create(const TreeConfig& config, int descriptor) noexcept {
  static constexpr char kName[] = "enchilada-tree";
  const std::uint64_t compressed_offset =
      kSwapOffset + ((config.swap_storage_bytes + kPageMask) & ~kPageMask);
  const std::uint64_t bytes =
      compressed_offset + ((config.compressed_storage_bytes + kPageMask) & ~kPageMask);
  // The kernel's answer to ftruncate beyond the limit is a signal.
  std::uint64_t limit[2] = {~std::uint64_t{0}, 0};
  raw_syscall(__NR_prlimit64, 0, RLIMIT_FSIZE, 0, reinterpret_cast<long>(limit));
  if (limit[0] < bytes) return TreeStatus::kFileSize;
  long fd = raw_syscall(__NR_memfd_create, reinterpret_cast<long>(kName), 0);
  if (failed(fd)) return TreeStatus::kSystem;
  if (failed(raw_syscall(__NR_ftruncate, fd, static_cast<long>(bytes)))) {
    raw_syscall(__NR_close, fd);
    return TreeStatus::kSystem;
  }
  if (descriptor >= 0 && descriptor != fd) {
    const long moved = raw_syscall(__NR_dup3, fd, descriptor, 0);
    raw_syscall(__NR_close, fd);
    if (failed(moved)) return TreeStatus::kSystem;
    fd = moved;
  }
  const long at = raw_syscall(__NR_mmap, static_cast<long>(kTreeAddress), static_cast<long>(bytes),
                              PROT_READ | PROT_WRITE, MAP_SHARED | kMapFixedNoReplace, fd, 0);
  if (at != static_cast<long>(kTreeAddress)) {
    raw_syscall(__NR_close, fd);
    return at == kEexist ? TreeStatus::kAddressTaken : TreeStatus::kSystem;
  }
  header_ = new (reinterpret_cast<void*>(kTreeAddress)) TreeHeader();
  header_->version = kTreeVersion;
  header_->abi_size = static_cast<std::uint32_t>(kAbiSize);
  header_->segment_bytes = bytes;
  header_->nonce = random_word() >> 1;
  header_->launcher_pid = own_pid();
  header_->segment_descriptor = static_cast<std::int32_t>(fd);
  header_->launcher_start_time = probe_process(own_pid()).start_time;
  header_->pid_namespace = PidView::current_namespace();
  header_->proc_device = PidView::current_proc();
  header_->swap_storage_offset = kSwapOffset;
  header_->compressed_storage_offset = compressed_offset;
  header_->config = config;
  header_->config.minimum_frames = chosen_minimum(config);
  if (config.fingerprint_seed == 0) header_->config.fingerprint_seed = random_word();
  CHECK(config.ram_frames <= words::kMaxFrames, config.ram_frames);
  header_->budget.store(words::budget(config.ram_frames, kMaxProcesses - 1, 0));
  header_->magic = kTreeMagic;
  return TreeStatus::kOk;
}

std::size_t ProcessTree::environment(std::span<char> buffer) const noexcept {
  if (buffer.size() < 110) return 0;
  char* p = put_number(buffer.data(), static_cast<std::uint64_t>(header_->segment_descriptor));
  for (const std::uint64_t value : {std::uint64_t{header_->launcher_pid}, header_->launcher_start_time,
                                    header_->segment_bytes, header_->nonce}) {
    *p++ = ':';
    p = put_number(p, value);
  }
  *p = 0;
  return static_cast<std::size_t>(p - buffer.data());
}

bool ProcessTree::map_segment(int descriptor, std::uint64_t nonce, std::uint64_t bytes,
                              TreeStatus* why) noexcept {
  // pread and not a mapping: the descriptor may have become any file, and a short one would kill us by
  // SIGBUS.
  std::uint64_t start[4] = {};
  static_assert(offsetof(TreeHeader, nonce) == 24 && offsetof(TreeHeader, segment_bytes) == 16);
  const long got = raw_syscall(__NR_pread64, descriptor, reinterpret_cast<long>(start), sizeof(start), 0);
  if (got != sizeof(start) || start[0] != kTreeMagic || start[3] != nonce || start[2] != bytes) return false;
  if (start[1] != (kTreeVersion | kAbiSize << 32)) {
    *why = TreeStatus::kMismatch;
    return false;
  }
  const long at = raw_syscall(__NR_mmap, static_cast<long>(kTreeAddress), static_cast<long>(bytes),
                              PROT_READ | PROT_WRITE, MAP_SHARED | kMapFixedNoReplace, descriptor, 0);
  if (at != static_cast<long>(kTreeAddress)) {
    if (!failed(at)) raw_syscall(__NR_munmap, at, static_cast<long>(bytes));
    *why = at == kEexist || !failed(at) ? TreeStatus::kAddressTaken : TreeStatus::kSystem;
    return false;
  }
  header_ = reinterpret_cast<TreeHeader*>(kTreeAddress);
  return true;
}

TreeStatus ProcessTree::attach(const char* value) noexcept {
  if (header_ != nullptr) return TreeStatus::kOk;
  std::uint64_t n[5];
  if (value == nullptr || !parse_numbers(value, n, 5)) return TreeStatus::kMalformed;
  const int descriptor = static_cast<int>(n[0]);
  TreeStatus why = TreeStatus::kUnreachable;
  if (map_segment(descriptor, n[4], n[3], &why)) return TreeStatus::kOk;
  if (why != TreeStatus::kUnreachable) return why;
  const auto parent = static_cast<std::uint32_t>(raw_syscall(__NR_getppid));
  for (const std::uint32_t pid : {static_cast<std::uint32_t>(n[1]), parent}) {
    const long opened = open_descriptor_of(pid, descriptor, O_RDWR | O_CLOEXEC);
    if (failed(opened)) continue;
    const bool mapped = map_segment(static_cast<int>(opened), n[4], n[3], &why);
    // Put it back where exec'd children look for it; without that they would have to come this way too.
    if (mapped && raw_syscall(__NR_fcntl, descriptor, F_GETFD) < 0)
      raw_syscall(__NR_dup3, opened, descriptor, 0);
    raw_syscall(__NR_close, opened);
    if (mapped) return TreeStatus::kOk;
  }
  return why;
}

int ProcessTree::reopen(int launcher_descriptor, int flags) const noexcept {
  if (!view_.proc_is_home()) return -1;
  if (view_.probe(header_->launcher_pid).start_time == header_->launcher_start_time) {
    const long opened = open_descriptor_of(header_->launcher_pid, launcher_descriptor, flags);
    if (!failed(opened)) return static_cast<int>(opened);
  }
  if (view_.abroad()) return -1;  // the parent's number here is another process's there
  const auto parent = static_cast<std::uint32_t>(raw_syscall(__NR_getppid));
  const long opened = open_descriptor_of(parent, launcher_descriptor, flags);
  return failed(opened) ? -1 : static_cast<int>(opened);
}

// ---- Looking in ----

TreeSlot& ProcessTree::at(ProcessSlot index) const noexcept {
  DCHECK(index.value() < kMaxProcesses, index.value());
  return reinterpret_cast<TreeSlot*>(kTreeAddress + kSlotsOffset)[index.value()];
}
const TreeSlot& ProcessTree::slot(ProcessSlot index) const noexcept {
  return at(index);
}
std::uint32_t ProcessTree::slots_used() const noexcept {
  return header_->slots_used.load();
}
std::span<std::byte> ProcessTree::swap_storage() const noexcept {
  return {reinterpret_cast<std::byte*>(kTreeAddress + header_->swap_storage_offset),
          header_->config.swap_storage_bytes};
}

std::span<std::byte> ProcessTree::compressed_storage() const noexcept {
  return {reinterpret_cast<std::byte*>(kTreeAddress + header_->compressed_storage_offset),
          header_->config.compressed_storage_bytes};
}
VmCounters& ProcessTree::counters() const noexcept {
  return at(self_).counters;
}
PageCount ProcessTree::available() const noexcept {
  return PageCount{words::budget_available(header_->budget.load())};
}
PageCount ProcessTree::charged(ProcessSlot slot) const noexcept {
  return PageCount{words::journal_frames(at(slot).journal.charge.load())};
}
PageCount ProcessTree::used() const noexcept {
  return PageCount{at(self_).used.load(std::memory_order_relaxed)};
}

// ---- The budget: see ChargeJournal for why a change takes three steps ----

void ProcessTree::settle(std::uint64_t budget_word) noexcept {
  const std::uint32_t sequence = words::budget_sequence(budget_word);
  auto& settled = at(ProcessSlot{words::budget_slot(budget_word)}).journal.settled;
  std::uint32_t seen = settled.load();
  while (words::newer(sequence, seen) && !settled.compare_exchange_weak(seen, sequence)) {
    // Somebody else has moved on; go on only while the word that we want to overwrite is still there.
    if (header_->budget.load() != budget_word) return;
  }
}

std::uint64_t ProcessTree::raise_charge(ProcessSlot index, std::uint64_t frames) noexcept {
  TreeSlot& slot = at(index);
  const std::uint64_t before = slot.journal.charge.load();
  const std::uint32_t sequence = words::next(words::journal_sequence(before));
  std::uint64_t word = header_->budget.load();
  std::uint64_t granted;
  std::uint64_t left;
  do {
    const std::uint64_t available = words::budget_available(word);
    granted = frames < available ? frames : available;
    if (granted == 0) return 0;
    left = available - granted;
    slot.journal.intent.store(words::journal(granted, sequence));
    settle(word);
  } while (!header_->budget.compare_exchange_weak(word, words::budget(left, index.value(), sequence)));
  const std::uint64_t now = words::journal_frames(before) + granted;
  slot.journal.charge.store(words::journal(now, sequence));
  words::raise(slot.peak_charge, now);
  words::raise(header_->peak_charge, header_->config.ram_frames - left);
  return granted;
}

void ProcessTree::lower_charge(ProcessSlot index, std::uint64_t frames) noexcept {
  if (frames == 0) return;
  TreeSlot& slot = at(index);
  const std::uint64_t before = slot.journal.charge.load();
  const std::uint32_t sequence = words::next(words::journal_sequence(before));
  CHECK(words::journal_frames(before) >= frames, words::journal_frames(before), frames);
  slot.journal.intent.store(words::journal_negative(frames, sequence));
  std::uint64_t word = header_->budget.load();
  std::uint64_t next;
  do {
    settle(word);
    const std::uint64_t available = words::budget_available(word) + frames;
    CHECK(available <= header_->config.ram_frames, available, header_->config.ram_frames);
    next = words::budget(available, index.value(), sequence);
  } while (!header_->budget.compare_exchange_weak(word, next));
  slot.journal.charge.store(words::journal(words::journal_frames(before) - frames, sequence));
  announce_return();
}

void ProcessTree::resolve_journal(ProcessSlot index) noexcept {
  TreeSlot& slot = at(index);
  const std::uint64_t charge = slot.journal.charge.load();
  const std::uint64_t intent = slot.journal.intent.load();
  const std::uint32_t sequence = words::journal_sequence(intent);
  if (sequence != words::next(words::journal_sequence(charge))) return;
  // In this order: a change that has left the budget word was settled before it left.
  const std::uint64_t word = header_->budget.load();
  const bool in_budget =
      words::budget_slot(word) == index.value() && words::budget_sequence(word) == sequence;
  if (!in_budget && slot.journal.settled.load() != sequence) return;
  const std::uint64_t frames = words::journal_frames(charge) + words::journal_delta(intent);
  slot.journal.charge.store(words::journal(frames, sequence));
}

void ProcessTree::announce_return() noexcept {
  header_->returned.fetch_add(1);
  if (header_->waiters.exchange(0) != 0) futex_wake_shared(header_->returned, 1 << 30);
}

PageCount ProcessTree::take(PageCount frames) noexcept {
  MutexLock guard(lock_);
  TreeSlot& slot = at(self_);
  const std::uint64_t used = slot.used.load(std::memory_order_relaxed);
  const std::uint64_t reserve = charged(self_).value() - used;
  std::uint64_t granted = frames.value() < reserve ? frames.value() : reserve;
  if (granted < frames.value()) granted += raise_charge(self_, frames.value() - granted);
  slot.used.store(used + granted, std::memory_order_relaxed);
  return PageCount{granted};
}

void ProcessTree::give_back(PageCount frames) noexcept {
  MutexLock guard(lock_);
  TreeSlot& slot = at(self_);
  std::uint64_t used = slot.used.load(std::memory_order_relaxed);
  CHECK(used >= frames.value(), used, frames.value());
  used -= frames.value();
  slot.used.store(used, std::memory_order_relaxed);
  const std::uint64_t keep = used > config().minimum_frames ? used : config().minimum_frames;
  const std::uint64_t have = charged(self_).value();
  if (have <= keep) return;
  const std::uint64_t given = have - keep;
  std::uint32_t wanted = slot.requested.load();
  while (wanted != 0) {
    const std::uint32_t rest = given >= wanted ? 0 : wanted - static_cast<std::uint32_t>(given);
    if (slot.requested.compare_exchange_weak(wanted, rest)) break;
  }
  lower_charge(self_, given);
}

PageCount ProcessTree::take_or_wait(PageCount frames, std::uint64_t timeout_ns) noexcept {
  PageCount got = take(frames);
  if (got.value() != 0 || frames.value() == 0) return got;
  recover_dead_now_and_then();
  const std::uint64_t deadline = monotonic_ns() + timeout_ns;
  for (;;) {
    const std::uint32_t ticket = header_->returned.load();
    got = take(frames);
    if (got.value() != 0) return got;
    const bool asked = request_frames(frames).value() != 0;
    const std::uint64_t now = monotonic_ns();
    if (now >= deadline || !asked) return got;
    header_->waiters.store(1);
    const std::uint64_t left = deadline - now;
    futex_wait_shared(header_->returned, ticket, left < kRetryNs ? left : kRetryNs);
    recover_dead_now_and_then();
  }
}

PageCount ProcessTree::wanted_back() const noexcept {
  const std::uint64_t wanted = at(self_).requested.load(std::memory_order_relaxed);
  if (wanted == 0) return PageCount{0};
  const std::uint64_t have = charged(self_).value();
  const std::uint64_t most = have > config().minimum_frames ? have - config().minimum_frames : 0;
  return PageCount{wanted < most ? wanted : most};
}
void ProcessTree::decline_request() noexcept {
  at(self_).requested.store(0);
}
std::atomic<std::uint32_t>& ProcessTree::request_word() const noexcept {
  return at(self_).requested;
}
void ProcessTree::wait_for_request(std::uint64_t timeout_ns) noexcept {
  if (at(self_).requested.load() == 0) futex_wait_shared(at(self_).requested, 0, timeout_ns);
}

void ProcessTree::note_unmanaged(UnmanagedWhy why, const char* path) noexcept {
  if (header_->unmanaged.fetch_add(1) != 0) return;
  const std::size_t room = header_->unmanaged_name.size() - 1;
  std::size_t length = 0;
  while (path[length] != 0) ++length;
  if (length > room) path += length - room;
  std::size_t at = 0;
  for (; path[at] != 0; ++at) header_->unmanaged_name[at].store(path[at], std::memory_order_relaxed);
  header_->unmanaged_name[at].store(0, std::memory_order_relaxed);
  header_->unmanaged_why.store(static_cast<std::uint32_t>(why));
}

}  // namespace enchilada
