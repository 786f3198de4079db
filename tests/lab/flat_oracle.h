// FlatOracle: what programs must see, without any virtual memory: every address space a table of pages, every
// private page its own copy, fork copies everything. Invariant: it shares no code with the designs.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "lab/workload.h"

namespace enchilada::lab {

class FlatOracle {
 public:
  using Words = std::map<std::uint64_t, std::uint64_t>;  // by offset in the page; absent: zero

  explicit FlatOracle(std::uint64_t files) : files_(files) {}
  void spawn(ProcessId process) { spaces_[process.value()] = {}; }

  /// Does what the step says; false: it is refused. *read: what a read gives.
  bool apply(const Step& step, ProcessId made, std::uint64_t* read) {
    Space& space = spaces_[step.process.value()];
    const std::uint64_t first = page_of(step.range.start);
    const std::uint64_t end = page_of(step.range.end);
    switch (step.call) {
      case Call::kRead:
      case Call::kWrite:
        return access(space, step, read);
      case Call::kMap:
        for (std::uint64_t p = first; p < end; ++p) space[p] = fresh(step, p - first);
        return true;
      case Call::kUnmap:
        space.erase(space.lower_bound(first), space.lower_bound(end));
        return true;
      case Call::kProtect:
        if (!covered(space, first, end)) return false;
        for (std::uint64_t p = first; p < end; ++p) space[p].prot = step.prot;
        return true;
      case Call::kDiscard:
        for (auto it = space.lower_bound(first); it != space.end() && it->first < end; ++it) {
          if (!it->second.shared) it->second.own.reset();
        }
        return true;
      case Call::kRemap:
        return remap(space, first, end, page_of(step.to));
      case Call::kFork:
        spaces_[made.value()] = space;
        return true;
      case Call::kExec:
        space.clear();
        return true;
      case Call::kExit:
        spaces_.erase(step.process.value());
        return true;
      case Call::kSpawn:
        spawn(made);
        return true;
      case Call::kReclaim:
        return true;
    }
    return false;
  }

 private:
  struct Shown {
    Prot prot = Prot::kNone;
    bool shared = false;
    std::optional<std::uint32_t> file;
    std::uint64_t index = 0;
    std::optional<Words> own;  // a private copy; none: the file's page, or zeros
  };
  using Space = std::map<std::uint64_t, Shown>;

  static std::uint64_t page_of(VirtAddr va) { return va.value() >> kPageShift; }
  static bool covered(const Space& space, std::uint64_t first, std::uint64_t end) {
    for (std::uint64_t p = first; p < end; ++p) {
      if (space.find(p) == space.end()) return false;
    }
    return true;
  }
  static Shown fresh(const Step& step, std::uint64_t n) {
    Shown shown;
    shown.prot = step.prot;
    shown.shared = step.shared && step.file.has_value();
    if (step.file.has_value()) shown.file = step.file->value();
    shown.index = step.offset.value() + n;
    return shown;
  }
  Words& words_of(Shown& shown, bool write) {
    if (shown.own.has_value()) return *shown.own;
    static const Words kZeros;
    const bool of_file = shown.file.has_value();
    Words& behind = of_file ? files_[*shown.file][shown.index] : zeros_;
    if (!write || shown.shared) return behind;
    return shown.own.emplace(of_file ? behind : kZeros);
  }
  bool access(Space& space, const Step& step, std::uint64_t* read) {
    const auto it = space.find(page_of(step.range.start));
    const bool write = step.call == Call::kWrite;
    if (it == space.end() || it->second.prot == Prot::kNone) return false;
    if (write && !allows(it->second.prot, Prot::kWrite)) return false;
    Words& words = words_of(it->second, write);
    const std::uint64_t offset = step.range.start.value() & kPageMask;
    if (write) {
      words[offset] = step.value;
    } else {
      const auto found = words.find(offset);
      *read = found == words.end() ? 0 : found->second;
    }
    return true;
  }
  static bool remap(Space& space, std::uint64_t first, std::uint64_t end, std::uint64_t to) {
    const std::uint64_t n = end - first;
    if (!covered(space, first, end) || (to < end && first < to + n)) return false;
    space.erase(space.lower_bound(to), space.lower_bound(to + n));
    for (std::uint64_t i = 0; i < n; ++i) {
      space[to + i] = space[first + i];
      space.erase(first + i);
    }
    return true;
  }

  std::map<std::uint32_t, Space> spaces_;
  std::vector<std::map<std::uint64_t, Words>> files_;
  Words zeros_;
};

}  // namespace enchilada::lab
