// The bytes of the process tree's segment: what all processes under one `enchilada run` share.
//
// Layout only, no behaviour (that is ProcessTree). Invariants: zero is a valid start for everything but the
// header's constants; nothing in it is a lock that a dead process could hold; whatever a process changes in
// more than one step can be told, finished or undone by any other process from what the segment says (see
// ChargeJournal).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "vm/vm_meter.h"
#include "vm/vm_modes.h"

namespace enchilada {

inline constexpr std::uint64_t kTreeMagic = 0x3165'6572'5443'6e45;  // "EnCTree1"
inline constexpr std::uint32_t kTreeVersion = 6;
/// Where the segment lies in every process: clear of the window, of ASLR's ranges and of sanitizer shadows.
inline constexpr std::uint64_t kTreeAddress = 0x3400'0000'0000;
inline constexpr std::uint32_t kMaxProcesses = 256;
inline constexpr std::uint32_t kMaxSwapFiles = 4;

/// How frames enter and leave the program's memory (DESIGN.md §6).
enum class TransportChoice : std::uint32_t { kAutomatic, kMove, kCopy };

/// One swap file: a descriptor that every process inherits, and its share of the linear block space.
struct SwapFile {
  std::int32_t descriptor = -1;
  std::uint32_t direct = 0;  // opened with O_DIRECT
  std::uint64_t blocks = 0;
};

/// What the launcher decided; constant after create().
struct TreeConfig {
  std::uint64_t ram_frames = 0;                // the tree's budget
  std::uint64_t minimum_frames = 0;            // guaranteed to each process; 0 = chosen from ram_frames
  std::uint64_t swap_blocks = 0;               // of all files together
  std::uint64_t swap_storage_bytes = 0;        // room for SwapSpace's metadata in the segment
  std::uint64_t compressed_bytes = 0;          // ring of the compressed store, beside ram_frames; 0 = none
  std::uint64_t compressed_storage_bytes = 0;  // the store with its metadata
  std::uint64_t fingerprint_seed = 0;          // random, for the swap pager's page fingerprints; 0 = chosen
  std::uint64_t file_size_limit = ~std::uint64_t{0};  // soft RLIMIT_FSIZE as the launcher found it
  TransportChoice transport = TransportChoice::kAutomatic;
  std::uint32_t verbose = 0;
  std::uint32_t swap_file_count = 0;
  VmModes modes;
  std::array<SwapFile, kMaxSwapFiles> swap_files{};
};

enum class SlotState : std::uint8_t {
  kFree,
  kAttaching,  // claimed, not ready yet
  kForking,    // reserved by a parent (the owner) for the child that it is about to make
  kLive,
  kExecing,     // the owner is about to call execve
  kRecovering,  // the owner died; the process named in the word is cleaning up
};

/// Why a program that a managed one executes runs without us.
enum class UnmanagedWhy : std::uint32_t {
  kNothing,    // it is managed
  kStatic,     // nothing can be loaded into it
  kOtherKind,  // 32 bits
  kFiltered,   // the program has installed a seccomp filter that it inherits
};

/// Charge of one slot, and the change that is under way.
///
/// A change is: write `intent`, exchange TreeHeader::budget (which names slot and sequence number of its last
/// change), write `charge`. Before anybody overwrites the budget word, the number found in it is copied to
/// that slot's `settled`. So whoever finds an unfinished intent can tell whether it took effect: its number
/// is in the budget word or in `settled`. Only the slot's owner (one thread at a time) writes intent and
/// charge.
struct ChargeJournal {
  std::atomic<std::uint64_t> intent;   // signed frames << 32 | sequence
  std::atomic<std::uint64_t> charge;   // frames << 32 | sequence of the last finished change
  std::atomic<std::uint32_t> settled;  // sequence of the last change known to be in the budget
};

// A page each: a process maps its own slot's counters at one fixed address and goes on with that after fork.
struct alignas(4096) TreeSlot {
  std::atomic<std::uint64_t>
      owner;  // pid << 32 | generation << 8 | SlotState: one word says whose the slot is
  // Who the owner is, beyond its pid. Tagged with the generation: a tag that does not match owner's means
  // "not known".
  std::atomic<std::uint64_t> start_time;  // field 22 of /proc/PID/stat << 24 | generation
  std::atomic<std::uint64_t>
      image;  // start of its stack (field 28), another one after exec, / 16 << 20 | generation
  ChargeJournal journal;
  std::atomic<std::uint32_t> child_pid;  // kForking: the kernel may write it here (CLONE_PARENT_SETTID)
  std::atomic<std::uint64_t> orphaned;   // kForking: when the parent was first seen dead (monotonic ns)
  std::atomic<std::uint64_t> used;       // frames out of the charge that the process really uses
  std::atomic<std::uint64_t> peak_charge;
  std::atomic<std::uint32_t> requested;  // futex: frames that siblings would like to have
  std::atomic<std::uint64_t>
      seen_faults;                       // vm_faults when a sibling last looked whether the process is idle,
  std::atomic<std::uint64_t> seen_time;  // and when that number was new (monotonic ns)
  std::array<std::atomic<char>, 16> name;
  VmCounters counters;
};

// NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): words of different use keep their own cache lines
struct alignas(64) TreeHeader {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t abi_size;  // of header and slots: a library of another build must not attach
  std::uint64_t segment_bytes;
  std::uint64_t nonce;  // random; the environment names it too, so a recycled descriptor is recognised
  std::uint32_t launcher_pid;
  std::int32_t segment_descriptor;
  std::uint64_t launcher_start_time;
  std::uint64_t pid_namespace;  // the launcher's, and the device of its /proc: what all numbers here refer to
  std::uint64_t proc_device;
  std::uint64_t swap_storage_offset;
  std::uint64_t compressed_storage_offset;
  TreeConfig config;

  // available frames (28 bits) | slot of the last change (8) | its sequence number (28)
  alignas(64) std::atomic<std::uint64_t> budget;
  alignas(64) std::atomic<std::uint32_t> returned;    // futex: counts give-backs
  std::atomic<std::uint32_t> waiters;                 // 1: somebody may sleep on `returned`
  std::atomic<std::uint64_t> peak_charge;             // of the whole tree
  std::atomic<std::uint32_t> slots_used;              // slots from here on have never been used
  std::atomic<std::uint64_t> attached;                // processes that ever joined (exec makes no new one)
  std::atomic<std::uint64_t> last_recovery;           // monotonic ns
  std::atomic<std::uint64_t> recovered;               // slots of dead processes cleaned up
  std::atomic<std::uint64_t> given_up;                // processes that ended themselves and said why
  std::atomic<std::uint64_t> unmanaged;               // programs that were exec'd and could not join,
  std::atomic<std::uint32_t> unmanaged_why;           // of the first one: an UnmanagedWhy,
  std::array<std::atomic<char>, 128> unmanaged_name;  // and the end of its path
  VmCounters ended;                                   // of processes that are gone
};

}  // namespace enchilada
