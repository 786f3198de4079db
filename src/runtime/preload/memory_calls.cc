// mmap and its family: what belongs into the window, and what stays the kernel's.
#include "runtime/preload/memory_calls.h"

#include <asm/mman.h>
#include <errno.h>
#include <linux/mman.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>

#include "runtime/preload/engine_section.h"
#include "runtime/preload/foreign.h"
#include "runtime/preload/live.h"
#include "runtime/preload/program_filter.h"
#include "runtime/preload/stack_switch.h"
#include "runtime/preload/syscalls.h"

namespace enchilada::runtime {
namespace {

using layout::in_window;

constexpr std::uint64_t kLargest = layout::kBrk.start.value() - layout::kWindow.start.value();

constexpr std::uint64_t round_up(std::uint64_t n) {
  return (n + kPageMask) & ~kPageMask;
}

VirtRange range_of(std::uint64_t address, std::uint64_t length) {
  return {VirtAddr{address}, VirtAddr{address + round_up(length)}};
}

bool inside_window(std::uint64_t address, std::uint64_t length) {
  return in_window(address) && length <= layout::kWindow.end.value() - address;
}

Prot prot_of(int prot) {
  Prot p = Prot::kNone;
  // x86 has no write-only and no execute-only mappings.
  if ((prot & (PROT_READ | PROT_WRITE | PROT_EXEC)) != 0) p = p | Prot::kRead;
  if ((prot & PROT_WRITE) != 0) p = p | Prot::kWrite;
  return p;
}

long answer(KernReturn result) {
  switch (result) {
    case KernReturn::kSuccess:
      return 0;
    case KernReturn::kInvalidAddress:
      return -ENOMEM;
    case KernReturn::kProtectionFailure:
      return -EACCES;
    case KernReturn::kNoSpace:
      return -ENOMEM;
    case KernReturn::kInvalidArgument:
      return -EINVAL;
    case KernReturn::kFailure:
      return -EIO;
    case KernReturn::kResourceShortage:
      return -ENOMEM;
    case KernReturn::kOutOfBounds:
      return -EINVAL;
  }
  return -EINVAL;
}

/// Anonymous private memory without special wishes is managed; everything else stays the kernel's.
bool manageable(int prot, int flags) {
  constexpr int kKernelOnly = MAP_GROWSDOWN | MAP_HUGETLB | MAP_32BIT | MAP_STACK;
  return (flags & MAP_ANONYMOUS) != 0 && (flags & MAP_TYPE) == MAP_PRIVATE && (flags & kKernelOnly) == 0 &&
         (prot & PROT_EXEC) == 0;
}

/// Alignment that allocators hope for: as large as the mapping, within reason, so that they need not trim.
std::uint64_t natural_alignment(std::uint64_t length) {
  constexpr std::uint64_t kMost = std::uint64_t{64} << 20;
  std::uint64_t alignment = kPageSize;
  while (alignment * 2 <= length && alignment < kMost) alignment *= 2;
  return alignment;
}

std::atomic<std::uint64_t> limit{~std::uint64_t{0}};
std::atomic<std::uint64_t> data_limit{~std::uint64_t{0}};

long map_managed(std::uint64_t hint, std::uint64_t length, int prot, int flags) {
  VmMap::MapRequest request;
  request.length = ByteCount{length};
  request.prot = prot_of(prot);
  request.hint = layout::kWindow.start;
  if ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != 0) {
    request.hint = VirtAddr{hint};
    request.placement = (flags & MAP_FIXED_NOREPLACE) != 0 ? VmMap::MapRequest::Placement::kFixedExclusive
                                                           : VmMap::MapRequest::Placement::kFixedReplace;
  } else {
    request.alignment = natural_alignment(length);
    if (in_window(hint)) request.hint = VirtAddr{hint & ~(request.alignment - 1)};
  }
  VirtAddr address;
  EngineSection section;
  const std::uint64_t most =
      std::min(limit.load(std::memory_order_relaxed), data_limit.load(std::memory_order_relaxed));
  if (most != ~std::uint64_t{0} && live().map().size().value() + length > most) return -ENOMEM;
  if (request.placement == VmMap::MapRequest::Placement::kFixedReplace)
    release_foreign(range_of(hint, length));
  KernReturn result = live().map().map(request, &address);
  if (result == KernReturn::kNoSpace && request.placement == VmMap::MapRequest::Placement::kAnywhere) {
    request.hint = layout::kWindow.start;  // nothing free above the hint
    result = live().map().map(request, &address);
  }
  if (result == KernReturn::kNoSpace && request.placement == VmMap::MapRequest::Placement::kFixedExclusive) {
    return -EEXIST;
  }
  return result == KernReturn::kSuccess ? static_cast<long>(address.value()) : answer(result);
}

/// A kernel mapping (file, shared, executable) at a fixed place in the window.
long map_foreign(std::uint64_t address, std::uint64_t length, int prot, int flags, int fd,
                 std::uint64_t offset) {
  const VirtRange range = range_of(address, length);
  EngineSection section;
  if ((flags & MAP_FIXED_NOREPLACE) != 0 && !live().map().is_free(range)) return -EEXIST;
  return install_foreign(range, prot, (flags & ~MAP_FIXED_NOREPLACE) | MAP_FIXED, fd, offset);
}

/// Pages of zeros are not written: what was never touched stays that way.
void copy_contents(const volatile std::uint64_t* from, std::uint64_t* to, std::uint64_t length) {
  constexpr std::uint64_t kWords = kPageSize / sizeof(*to);
  for (std::uint64_t page = 0; page < length / kPageSize; ++page, from += kWords, to += kWords) {
    std::uint64_t any = 0;
    for (std::uint64_t i = 0; i < kWords; ++i) any |= from[i];
    for (std::uint64_t i = 0; any != 0 && i < kWords; ++i) to[i] = from[i];
  }
}

/// A managed range becomes the kernel's, contents kept: what mprotect(PROT_EXEC) of a JIT compiler needs.
long convert_to_foreign(VirtRange range, int prot) {
  const std::uint64_t length = range.size().value();
  {
    // It may be a reservation that nobody could read so far.
    EngineSection section;
    const KernReturn readable = live().map().protect(range, prot_of(PROT_READ));
    if (readable != KernReturn::kSuccess) return answer(readable);
  }
  const long staging = raw_syscall(SYS_mmap, 0, static_cast<long>(length), PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (staging < 0) return staging;
  // Read through the program's own addresses, page faults and all, before the engine is entered.
  copy_contents(reinterpret_cast<const volatile std::uint64_t*>(range.start.value()),
                reinterpret_cast<std::uint64_t*>(staging), length);
  EngineSection section;
  long result =
      install_foreign(range, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  if (result >= 0) {
    copy_contents(reinterpret_cast<const volatile std::uint64_t*>(staging),
                  reinterpret_cast<std::uint64_t*>(range.start.value()), length);
    result =
        window_syscall(SYS_mprotect, static_cast<long>(range.start.value()), static_cast<long>(length), prot);
  }
  raw_syscall(SYS_munmap, staging, static_cast<long>(length));
  return result < 0 ? result : 0;
}

long fault_in(VirtRange range, Access access) {
  for (VirtAddr at = range.start; at < range.end; at = at + ByteCount{kPageSize}) {
    switch (live().fault(at, access)) {
      case FaultResult::kResolved:
        break;
      case FaultResult::kNotMapped:
        return -ENOMEM;
      case FaultResult::kProtection:
        return -EINVAL;
      case FaultResult::kIoError:
      case FaultResult::kOutOfBounds:
        return -EFAULT;
      case FaultResult::kNoMemory:
        return -ENOMEM;
    }
  }
  return 0;
}

long advise(VirtRange range, Advice advice) {
  EngineSection section;
  const KernReturn result = live().map().advise(range, advice);
  // Like the kernel: what is there has been advised, and a hole is reported.
  return result == KernReturn::kSuccess && !live().map().is_covered(range) ? -ENOMEM : answer(result);
}

long set_inheritance(VirtRange range, Inherit inherit) {
  EngineSection section;
  return answer(live().map().inherit(range, inherit));
}

/// mremap grows at the end if there is room.
bool grow_in_place(VirtRange old_range, std::uint64_t new_length, Prot prot) {
  VmMap::MapRequest request;
  request.length = ByteCount{new_length - old_range.size().value()};
  request.hint = old_range.end;
  request.prot = prot;
  request.placement = VmMap::MapRequest::Placement::kFixedExclusive;
  if (!inside_window(old_range.end.value(), request.length.value())) return false;
  VirtAddr address;
  return live().map().map(request, &address) == KernReturn::kSuccess;
}

long remap_elsewhere(VirtRange from, std::uint64_t new_length, int flags, std::uint64_t new_address) {
  VmMap& map = live().map();
  const bool keep_source = (flags & MREMAP_DONTUNMAP) != 0;
  if (from.size().value() > new_length) {
    const VirtAddr cut = from.start + ByteCount{new_length};
    if (map.remove({cut, from.end}) != KernReturn::kSuccess) return -ENOMEM;
    from.end = cut;
  }
  VirtAddr target{new_address};
  KernReturn result = KernReturn::kSuccess;
  if ((flags & MREMAP_FIXED) != 0) {
    result = map.remap(from, range_of(new_address, new_length), keep_source);
  } else {
    VmMap::MapRequest place;
    place.length = ByteCount{new_length};
    place.hint = layout::kWindow.start;
    place.alignment = natural_alignment(new_length);
    result = map.remap_anywhere(from, place, keep_source, &target);
  }
  return result == KernReturn::kSuccess ? static_cast<long>(target.value()) : answer(result);
}

std::atomic<std::uint64_t> current_break{layout::kBrk.start.value()};

}  // namespace

long call_mmap(std::uint64_t address, std::uint64_t length, int prot, int flags, int fd,
               std::uint64_t offset) {
  if (on_managed_stack())
    return off_managed_stack([=] { return call_mmap(address, length, prot, flags, fd, offset); });
  const bool fixed = (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != 0;
  const bool in = in_window(address);
  if (!live().ready() || (fixed && !in) || (!fixed && !manageable(prot, flags))) {
    // A hint into the window must not make the kernel put something of its own there; it cannot: the window
    // is one mapping already. Drop the hint so that the filter need not look.
    return program_syscall(SYS_mmap, static_cast<long>(in && !fixed ? 0 : address), static_cast<long>(length),
                           prot, flags, fd, static_cast<long>(offset));
  }
  if (length == 0 || (fixed && (address & kPageMask) != 0)) return -EINVAL;
  if (length > kLargest) return -ENOMEM;
  length = round_up(length);
  if (fixed && !inside_window(address, length)) return -ENOMEM;
  if (!manageable(prot, flags)) return map_foreign(address, length, prot, flags, fd, offset);
  const long at = map_managed(address, length, prot, flags);
  if (at >= 0 && (flags & MAP_LOCKED) != 0) call_mlock(static_cast<std::uint64_t>(at), length);
  return at;
}

long call_munmap(std::uint64_t address, std::uint64_t length) {
  if (on_managed_stack()) return off_managed_stack([=] { return call_munmap(address, length); });
  if (!live().ready() || !in_window(address)) {
    return program_syscall(SYS_munmap, static_cast<long>(address), static_cast<long>(length));
  }
  if ((address & kPageMask) != 0 || length == 0 || !inside_window(address, round_up(length))) return -EINVAL;
  const VirtRange range = range_of(address, length);
  EngineSection section;
  release_foreign(range);
  return answer(live().map().remove(range));
}

long call_mprotect(std::uint64_t address, std::uint64_t length, int prot) {
  if (on_managed_stack()) return off_managed_stack([=] { return call_mprotect(address, length, prot); });
  if (!live().ready() || !in_window(address)) {
    return program_syscall(SYS_mprotect, static_cast<long>(address), static_cast<long>(length), prot);
  }
  constexpr int kProtections = PROT_READ | PROT_WRITE | PROT_EXEC | PROT_SEM;  // and nothing here grows
  if ((address & kPageMask) != 0 || (prot & ~kProtections) != 0) return -EINVAL;
  if (length == 0) return 0;
  if (!inside_window(address, round_up(length))) return -ENOMEM;
  const VirtRange range = range_of(address, length);
  {
    EngineSection section;
    if (has_foreign(range)) {
      const long result =
          window_syscall(SYS_mprotect, static_cast<long>(address), static_cast<long>(length), prot);
      if (result < 0) return result;
      note_foreign_protection(range, prot);
      if (only_foreign(range)) return 0;
    }
    if ((prot & PROT_EXEC) == 0) return answer(live().map().protect(range, prot_of(prot)));
  }
  return convert_to_foreign(range, prot);
}

long call_madvise(std::uint64_t address, std::uint64_t length, int advice) {
  if (on_managed_stack()) return off_managed_stack([=] { return call_madvise(address, length, advice); });
  if (!live().ready() || !in_window(address)) {
    return program_syscall(SYS_madvise, static_cast<long>(address), static_cast<long>(length), advice);
  }
  if ((address & kPageMask) != 0 || !inside_window(address, round_up(length))) return -EINVAL;
  if (length == 0) return 0;
  const VirtRange range = range_of(address, length);
  switch (advice) {
    case MADV_DONTNEED:
    case MADV_DONTNEED_LOCKED:
      return advise(range, Advice::kDiscard);
    case MADV_FREE:
      return advise(range, Advice::kFree);
    case MADV_NORMAL:
      return advise(range, Advice::kNormal);
    case MADV_SEQUENTIAL:
      return advise(range, Advice::kSequential);
    case MADV_RANDOM:
      return advise(range, Advice::kRandom);
    case MADV_WILLNEED:
      return advise(range, Advice::kWillNeed);
    case MADV_COLD:
    case MADV_PAGEOUT:
      return advise(range, Advice::kDontNeed);
    case MADV_POPULATE_READ:
      return fault_in(range, Access::kRead);
    case MADV_POPULATE_WRITE:
      return fault_in(range, Access::kWrite);
    case MADV_DONTFORK:
      return set_inheritance(range, Inherit::kNone);
    case MADV_WIPEONFORK:
      return set_inheritance(range, Inherit::kZero);
    case MADV_DOFORK:
    case MADV_KEEPONFORK:
      return set_inheritance(range, Inherit::kCopy);
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE:
    case MADV_MERGEABLE:
    case MADV_UNMERGEABLE:
    case MADV_DONTDUMP:
    case MADV_DODUMP:
      return 0;  // changes nothing here
    default:
      return -EINVAL;  // of private memory (MADV_REMOVE), of an older kernel (guards), of what is no advice
  }
}

long call_mremap(std::uint64_t old_address, std::uint64_t old_length, std::uint64_t new_length, int flags,
                 std::uint64_t new_address) {
  if (on_managed_stack())
    return off_managed_stack(
        [=] { return call_mremap(old_address, old_length, new_length, flags, new_address); });
  const bool to_window = (flags & MREMAP_FIXED) != 0 && in_window(new_address);
  if (!live().ready() || (!in_window(old_address) && !to_window)) {
    return program_syscall(SYS_mremap, static_cast<long>(old_address), static_cast<long>(old_length),
                           static_cast<long>(new_length), flags, static_cast<long>(new_address));
  }
  if (!in_window(old_address) || ((flags & MREMAP_FIXED) != 0 && !to_window)) return -EINVAL;
  old_length = round_up(old_length);
  new_length = round_up(new_length);
  if ((old_address & kPageMask) != 0 || new_length == 0 || old_length == 0 || new_length > kLargest ||
      !inside_window(old_address, old_length)) {
    return -EINVAL;
  }
  if ((flags & MREMAP_FIXED) != 0 && ((flags & MREMAP_MAYMOVE) == 0 || (new_address & kPageMask) != 0)) {
    return -EINVAL;
  }
  const VirtRange range = range_of(old_address, old_length);
  EngineSection section;
  VmMap& map = live().map();
  if (!map.is_covered(range)) return -EFAULT;
  if (has_foreign(range)) return -EINVAL;
  if ((flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) == 0) {
    if (new_length == old_length) return static_cast<long>(old_address);
    if (new_length < old_length) {
      const long result = answer(map.remove({range.start + ByteCount{new_length}, range.end}));
      return result < 0 ? result : static_cast<long>(old_address);
    }
    const Prot prot = map.check_protection({range.end - ByteCount{kPageSize}, range.end});
    if (grow_in_place(range, new_length, prot)) return static_cast<long>(old_address);
    if ((flags & MREMAP_MAYMOVE) == 0) return -ENOMEM;
  }
  if ((flags & MREMAP_FIXED) != 0) release_foreign(range_of(new_address, new_length));
  return remap_elsewhere(range, new_length, flags, new_address);
}

long call_mincore(std::uint64_t address, std::uint64_t length, unsigned char* vec) {
  if (on_managed_stack()) return off_managed_stack([=] { return call_mincore(address, length, vec); });
  if (!live().ready() || !in_window(address)) {
    return window_syscall(SYS_mincore, static_cast<long>(address), static_cast<long>(length), as_long(vec));
  }
  if ((address & kPageMask) != 0) return -EINVAL;
  if (!inside_window(address, round_up(length))) return -ENOMEM;
  const VirtRange range = range_of(address, length);
  // `vec` may itself be managed memory: fill a small buffer inside the engine, copy outside of it.
  unsigned char chunk[256];
  for (VirtAddr at = range.start; at < range.end;) {
    const std::uint64_t pages =
        std::min<std::uint64_t>((range.end - at).value() >> kPageShift, sizeof(chunk));
    {
      EngineSection section;
      const VirtRange part{at, at + to_bytes(PageCount{pages})};
      if (!live().map().is_covered(part)) return -ENOMEM;
      for (std::uint64_t i = 0; i < pages; ++i) {
        chunk[i] = live().host().resident({at + to_bytes(PageCount{i}), at + to_bytes(PageCount{i + 1})},
                                          Access::kRead)
                       ? 1
                       : 0;
      }
    }
    for (std::uint64_t i = 0; i < pages; ++i) *vec++ = chunk[i];
    at = at + to_bytes(PageCount{pages});
  }
  return 0;
}

long call_mlock(std::uint64_t address, std::uint64_t length) {
  if (on_managed_stack()) return off_managed_stack([=] { return call_mlock(address, length); });
  if (!live().ready() || !in_window(address)) {
    return program_syscall(SYS_mlock, static_cast<long>(address), static_cast<long>(length));
  }
  const std::uint64_t start = address & ~kPageMask;
  const std::uint64_t size = round_up(address + length) - start;
  if (!inside_window(start, size)) return -ENOMEM;
  if (length == 0) return 0;
  // More than half of the budget wired would leave too little to run in.
  if (size > (live().tree().config().ram_frames << kPageShift) / 2) return -ENOMEM;
  EngineSection section;
  return answer(live().map().wire(range_of(start, size)));
}

long call_munlock(std::uint64_t address, std::uint64_t length) {
  if (on_managed_stack()) return off_managed_stack([=] { return call_munlock(address, length); });
  if (!live().ready() || !in_window(address)) {
    return program_syscall(SYS_munlock, static_cast<long>(address), static_cast<long>(length));
  }
  const std::uint64_t start = address & ~kPageMask;
  const std::uint64_t size = round_up(address + length) - start;
  if (!inside_window(start, size)) return -ENOMEM;
  EngineSection section;
  return answer(live().map().unwire(range_of(start, size)));
}

long call_mlockall(int flags) {
  if (on_managed_stack()) return off_managed_stack([=] { return call_mlockall(flags); });
  if (!live().ready()) return program_syscall(SYS_mlockall, flags);
  // The kernel must not lock the window. What the program has in it may be more than --ram: refuse as the
  // kernel refuses beyond RLIMIT_MEMLOCK, else accept; nothing that fits is ever paged out anyway.
  const std::uint64_t half = (live().tree().config().ram_frames << kPageShift) / 2;
  return live().map().size().value() > half ? -ENOMEM : 0;
}

long call_munlockall() {
  return live().ready() ? 0 : raw_syscall(SYS_munlockall);
}

long call_msync(std::uint64_t address, std::uint64_t length, int flags) {
  if (on_managed_stack()) return off_managed_stack([=] { return call_msync(address, length, flags); });
  if (!live().ready() || !in_window(address)) {
    return program_syscall(SYS_msync, static_cast<long>(address), static_cast<long>(length), flags);
  }
  if ((address & kPageMask) != 0 || !inside_window(address, round_up(length))) return -EINVAL;
  const VirtRange range = range_of(address, length);
  EngineSection section;
  if (has_foreign(range)) {
    return window_syscall(SYS_msync, static_cast<long>(address), static_cast<long>(length), flags);
  }
  return range.empty() || live().map().is_covered(range) ? 0 : -ENOMEM;
}

void set_data_limit(std::uint64_t bytes) {
  data_limit.store(bytes);
}
void set_address_limit(std::uint64_t bytes) {
  limit.store(bytes);
}
std::uint64_t address_limit() {
  return limit.load();
}

std::uint64_t call_brk(std::uint64_t wanted) {
  if (on_managed_stack())
    return static_cast<std::uint64_t>(off_managed_stack([=] { return static_cast<long>(call_brk(wanted)); }));
  if (!live().ready()) return static_cast<std::uint64_t>(raw_syscall(SYS_brk, static_cast<long>(wanted)));
  const std::uint64_t now = current_break.load();
  if (wanted < layout::kBrk.start.value() || wanted > layout::kBrk.end.value()) return now;
  const std::uint64_t old_end = round_up(now);
  const std::uint64_t new_end = round_up(wanted);
  if (new_end > old_end &&
      map_managed(old_end, new_end - old_end, PROT_READ | PROT_WRITE, MAP_FIXED_NOREPLACE) < 0) {
    return now;
  }
  if (new_end < old_end && call_munmap(new_end, old_end - new_end) < 0) return now;
  current_break.store(wanted);
  return wanted;
}

bool answer_memory_call(long nr, const long (&args)[6], long* result) {
  const auto word = [&args](int i) { return static_cast<std::uint64_t>(args[i]); };
  const auto number = [&args](int i) { return static_cast<int>(args[i]); };
  switch (nr) {
    case SYS_mmap:
      *result = call_mmap(word(0), word(1), number(2), number(3), number(4), word(5));
      return true;
    case SYS_munmap:
      *result = call_munmap(word(0), word(1));
      return true;
    case SYS_mprotect:
      *result = call_mprotect(word(0), word(1), number(2));
      return true;
    case SYS_madvise:
      *result = call_madvise(word(0), word(1), number(2));
      return true;
    case SYS_mremap:
      *result = call_mremap(word(0), word(1), word(2), number(3), word(4));
      return true;
    case SYS_mincore:
      *result = call_mincore(word(0), word(1), reinterpret_cast<unsigned char*>(args[2]));
      return true;
    case SYS_mlock:
    case SYS_mlock2:
      *result = call_mlock(word(0), word(1));
      return true;
    case SYS_munlock:
      *result = call_munlock(word(0), word(1));
      return true;
    case SYS_mlockall:
      *result = call_mlockall(number(0));
      return true;
    case SYS_munlockall:
      *result = call_munlockall();
      return true;
    case SYS_msync:
      *result = call_msync(word(0), word(1), number(2));
      return true;
    case SYS_brk:
      *result = static_cast<long>(call_brk(word(0)));
      return true;
    default:
      return false;
  }
}

}  // namespace enchilada::runtime
