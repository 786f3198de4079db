// Where things lie in a managed process: every address is fixed, the same in all processes of a tree.
//
// Invariants: only the window is ever seen by the program; the seccomp filter recognises window addresses by
// their high half alone, so the window starts and ends on multiples of 2^32; nothing here overlaps ASan's
// shadow memory (which ends at 0x1000'7fff'8000, live-runtime.md rule 4), the stack, PIE programs or
// libraries.
#pragma once

#include "base/units.h"

namespace enchilada::layout {

/// All managed memory: 16 TiB.
inline constexpr VirtRange kWindow{VirtAddr{0x2000'0000'0000}, VirtAddr{0x3000'0000'0000}};
/// brk/sbrk of managed programs: the last 64 GiB of the window.
inline constexpr VirtRange kBrk{VirtAddr{0x2ff0'0000'0000}, VirtAddr{0x3000'0000'0000}};
/// Home slots of the frames.
inline constexpr std::uint64_t kPoolBase = 0x3100'0000'0000;
/// The engine's arena.
inline constexpr std::uint64_t kArenaBase = 0x3200'0000'0000;
inline constexpr std::uint64_t kArenaSize = std::uint64_t{64} << 30;
/// This process's counters: one page of the tree's segment, remapped after fork.
inline constexpr std::uint64_t kCountersPage = 0x3300'0000'0000;
/// The page of system-call gadgets which the filter exempts.
inline constexpr std::uint64_t kGadgetPage = 0x3301'0000'0000;
/// Blocks of thread records and their signal stacks.
inline constexpr std::uint64_t kThreadBase = 0x3302'0000'0000;
inline constexpr std::uint64_t kThreadBlock = std::uint64_t{256} << 10;
inline constexpr std::uint64_t kMaxThreads = 4096;
/// Small allocations that must never be paged: the dynamic loader's, spawn attributes, copied strings.
inline constexpr std::uint64_t kResidentHeap = 0x3303'0000'0000;
inline constexpr std::uint64_t kResidentHeapSize = std::uint64_t{1} << 30;

constexpr bool in_window(std::uint64_t address) {
  return (address >> 44) == 2;
}
static_assert(in_window(kWindow.start.value()) && in_window(kWindow.end.value() - 1) &&
              !in_window(kWindow.end.value()) && !in_window(kWindow.start.value() - 1));

}  // namespace enchilada::layout
