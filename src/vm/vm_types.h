// Types and verdicts that every part of the engine shares.
#pragma once

#include <cstdint>

#include "base/units.h"

namespace enchilada {

/// Protection of a mapping: a set of rights. Execute is kept for callers; no machine here enforces it.
enum class Prot : std::uint8_t { kNone = 0, kRead = 1, kWrite = 2, kReadWrite = 3, kExecute = 4, kAll = 7 };

constexpr Prot operator&(Prot a, Prot b) {
  return static_cast<Prot>(static_cast<std::uint8_t>(a) & static_cast<std::uint8_t>(b));
}
constexpr Prot operator|(Prot a, Prot b) {
  return static_cast<Prot>(static_cast<std::uint8_t>(a) | static_cast<std::uint8_t>(b));
}
constexpr Prot without(Prot a, Prot b) {
  return static_cast<Prot>(static_cast<std::uint8_t>(a) & ~static_cast<std::uint8_t>(b));
}
constexpr bool allows(Prot have, Prot want) {
  return (have & want) == want;
}

/// What the access that faulted wanted.
enum class Access : std::uint8_t { kRead, kWrite };

constexpr Prot prot_for(Access a) {
  return a == Access::kWrite ? Prot::kWrite : Prot::kRead;
}

/// What a child's map gets of an entry at fork (minherit(2)).
enum class Inherit : std::uint8_t { kShare, kCopy, kNone, kZero };

/// madvise(2) in the engine's terms.
enum class Advice : std::uint8_t {
  kNormal,
  kSequential,
  kRandom,
  kWillNeed,  // bring resident pages to life, start read-ahead of the rest
  kDontNeed,  // FreeBSD's: contents kept, pages become the next victims
  kFree,      // contents may be dropped; later reads give the old data or zeros
  kDiscard,   // Linux's MADV_DONTNEED: contents gone, the next read gives zeros
};

/// Verdict of an operation on a map (FreeBSD's KERN_* codes).
enum class [[nodiscard]] KernReturn : std::uint8_t{
    kSuccess,
    kInvalidAddress,     // outside the map, or a hole where none is allowed
    kProtectionFailure,  // beyond the entry's (maximum) protection
    kNoSpace,            // no room, or the range is taken
    kInvalidArgument,
    kFailure,           // the backing store failed
    kResourceShortage,  // metadata or memory or swap used up
    kOutOfBounds,       // beyond the object's end
};

/// What an object's pages are (freebsd-vm.md §1.1).
enum class ObjectKind : std::uint8_t {
  kAnonymous,  // zeros at first, swap behind it; the only kind with a backing object
  kFile,       // pages of a file, shared by all that map it
  kDevice,     // frames that the machine never granted
  kPhysical,   // granted frames that stay where they are
};

/// Verdict of a pager.
enum class [[nodiscard]] PagerReturn : std::uint8_t{
    kOk,     // done
    kClean,  // put only: the copy in the backing store was still equal, nothing had to be written
    kFail,   // get: the pager has no such page; put: no space now, the page stays dirty
    kError,  // I/O error
    kBad,    // outside the object
};

}  // namespace enchilada
