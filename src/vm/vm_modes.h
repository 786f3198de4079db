// VmModes: which form of each mechanism an engine has. The one registry of mechanisms and their modes.
//
// A mechanism is an enum class and its ModeOf<> below: name, the modes' names, the modes that the presets
// choose, one line of help. A mode is a class behind a seam, made when the VmSystem is made; algorithms never
// ask for modes. Adding one: an enum, its ModeOf, its place in AllModes; `--set`, the presets, tests that
// walk all modes and the ablation follow from that.
//
// Invariant: VmModes is plain data, each value one of its mechanism's; it lies in shared segments, so the
// launcher and the processes of one tree (which are of one build) agree on it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

namespace enchilada {

/// Whole sets of modes. kArticle: "Design elements of the FreeBSD VM system" (2000). kModern: FreeBSD 14.
/// kHybrid, the default: what is best here, most of it the article's queues with today's algorithms.
enum class Preset : std::uint8_t { kHybrid, kArticle, kModern };
inline constexpr std::array<std::string_view, 3> kPresetNames = {"hybrid", "article", "modern"};

/// Who obeys a mechanism.
enum class ModeScope : std::uint8_t {
  kEveryMachine,    // the engine itself: also `enchilada run`
  kSoftMachineOnly  // page tables, frames with addresses: simulated machines
};

/// When object chains are shortened (docs/mechanisms/objects.md).
enum class CollapseMode : std::uint8_t {
  kGuarded,  // today's moments, and after a copy-on-write fault where page counts say that it may work
  kArticle,  // after every copy-on-write fault, and when an object loses a reference
  kModern,   // FreeBSD 14: when a reference goes, at fork, at removal, when a neighbour is mapped
};

/// A write to a page that nobody else can see any more (docs/mechanisms/objects.md).
enum class CowMoveMode : std::uint8_t {
  kOff,  // copies it
  kOn,   // takes it
};

/// Pages that nobody can reach because every shadow hides them (docs/mechanisms/objects.md).
enum class DeadPagesMode : std::uint8_t {
  kKeep,     // the article: they are paged out some day
  kReclaim,  // freed, or used for the copy, at the write that makes them dead
};

/// How free blocks of swap are found (docs/mechanisms/swap-allocators.md).
enum class SwapAllocatorMode : std::uint8_t {
  kBlist,      // today's: hints, runs across leaves, a cursor
  kBlist1999,  // the article's, as it was in FreeBSD 4.0
  kList3x,     // what that replaced: FreeBSD 3.x's linear list of holes
};

/// How it is known which page is in which block (docs/mechanisms/swap-metadata.md).
enum class SwapMetaMode : std::uint8_t {
  kTrie,     // today's: a trie for each object
  kHash,     // the article's: one hash table for all
  kArray3x,  // what that replaced: FreeBSD 3.x's array for a whole object
};

/// How pages are packed in the compressed store, where there is one (docs/mechanisms/compressed-memory.md).
enum class CompressionMode : std::uint8_t { kLz4, kZstd };

/// How many frames are kept free, and from when on pages are taken (freebsd-vm.md §1.9; vm_thresholds.h).
enum class ThresholdMode : std::uint8_t {
  kLive,     // small: the thread that faults does the work itself
  kArticle,  // FreeBSD 4: a reserve, a target, and as much again on the cache queue
  kModern    // FreeBSD 14: a reserve and a target
};

/// How the active queue is scanned for pages that are no longer used (vm_active_scan.h).
enum class ActiveScanMode : std::uint8_t {
  kPressure,  // survivors to the tail; the more pages are missing, the higher a count may be
  kRequeue,   // the article's: survivors to the tail, a page leaves at zero
  kTwoHand    // FreeBSD 14's: a clock with two hands, survivors stay where they are
};

/// How many frames a run of the page daemon tries to gain (vm_pageout_target.h).
enum class PageoutTargetMode : std::uint8_t { kFixed, kPid };

/// When dirty pages are written (vm_laundry_rule.h).
enum class LaundryMode : std::uint8_t {
  kClustered,  // a queue of their own; a whole write's worth when clean pages do not suffice
  kArticle,    // twice round the inactive queue, then so many a pass
  kBackground  // a queue of their own; a shortfall at once, else by the ratio of dirty to clean pages
};

/// What becomes of a clean page that nobody uses (vm_clean_rule.h).
enum class CacheQueueMode : std::uint8_t {
  kSurplus,  // freed as far as frames are wanted; what is left over waits on the cache queue
  kOn,       // the article's: all of them wait on the cache queue until an allocation takes them
  kOff       // FreeBSD 14's: freed
};

/// Are pages that nobody uses paged out while memory is not short? (The article's "urban myth".)
enum class ProactiveMode : std::uint8_t { kOff, kOn };

/// Are the pages behind a sequential stream made the next victims?
enum class DropBehindMode : std::uint8_t { kOff, kOn };

/// What MADV_DONTNEED in FreeBSD's sense does: contents are kept, the pages go before others.
enum class DontNeedMode : std::uint8_t {
  kPageOut,   // at once
  kWeighted,  // the article's: of 32 pages one stays, three are deactivated, the others go first
  kHead       // FreeBSD 14's: clean ones go first, dirty ones to the laundry
};

/// How the page daemon learns that a page was used (vm_reference_collector.h).
enum class ReferenceMode : std::uint8_t {
  kBits,       // the machine's reference bits; where it has none, by withdrawal
  kWithdrawal  // unmapping pages and seeing whether they are faulted back, as on the host
};

/// In which order free frames are handed out (docs/mechanisms/page-colouring.md).
enum class FrameOrderMode : std::uint8_t {
  kBuddy,        // runs of consecutive frames, whatever their colour
  kColoured,     // the article's lists by page colour
  kReservation,  // today's: aligned blocks reserved at the first fault
};

/// Where the entries of the reverse map come from (docs/mechanisms/pv-entries.md).
enum class PvMode : std::uint8_t {
  kList,   // the article's: one fixed pool with a limit and a high-water mark
  kChunk,  // today's: pages of 168 entries that belong to an address space, reclaimed by age
};

/// What a fork does with page tables (docs/mechanisms/throw-away-tables.md).
enum class ForkTablesMode : std::uint8_t {
  kDrop,   // nothing: the child faults its mappings in
  kThrow,  // throws the parent's away too, whole
  kCopy,   // copies the entries
};

/// Mappings of 2 MiB (docs/mechanisms/superpages.md).
enum class SuperpagesMode : std::uint8_t {
  kOff,
  kPromote,  // full tables of neighbouring frames become one mapping
};

/// Leaf page tables that several address spaces use (docs/mechanisms/shared-page-tables.md).
enum class SharedTablesMode : std::uint8_t {
  kOff,
  kOn,  // fork shares them until somebody changes something; before fork_tables
};

/// The format of page tables (docs/mechanisms/hashed-page-table.md).
enum class PageTableMode : std::uint8_t {
  kRadix,   // x86-64: four levels
  kHashed,  // one table for all address spaces
};

/// What finds an entry of a map, and the gaps between entries (docs/mechanisms/map.md).
enum class MapIndexMode : std::uint8_t {
  kAvl,
  kSplay,     // FreeBSD's since 5.0; its lookups only look
  kRedBlack,  // Linux's until 6.0, the other BSDs'
  kBTree,     // as wide as Linux's maple tree
};

/// Which resident neighbours are mapped along with a page (vm_prefault.h).
enum class PrefaultMode : std::uint8_t {
  kOff,
  kFault,        // the article's: four pages to either side, nearest first
  kMapAndFault,  // ... and, when an object is mapped, what is in memory of it
  kCluster,      // the aligned cluster around the page
};

/// How much a page-in reads beside the wanted page (vm_readahead.h).
enum class ReadAheadMode : std::uint8_t {
  kOff,
  kArticle,   // FreeBSD 4's: seven pages back, eight on
  kAdaptive,  // windows by advice and by recognised streams; guesses that must prove good
};

/// Are free frames zeroed while the machine is idle? (vm_prezero.h)
enum class PreZeroMode : std::uint8_t {
  kOff,
  kIdle,      // the article's: from a third to a half of the free frames
  kIdleMore,  // later FreeBSD's: from two thirds to four fifths
};

/// Which pages are copied before they are written (vm_precopy.h).
enum class PreCopyMode : std::uint8_t { kOff, kFork, kExec, kBoth };

/// What the registry knows of one mechanism. A mode's index in `modes` is its enumerator's value; the first
/// is not necessarily the default.
struct Mechanism {
  std::string_view name;
  std::span<const std::string_view> modes;
  std::string_view what;
  ModeScope scope = ModeScope::kEveryMachine;
  std::array<std::uint8_t, kPresetNames.size()> presets{};  // by Preset
};

/// Specialised for every mechanism's enum: kNames, and the modes kHybrid, kArticle, kModern.
template <class Mode>
struct ModeOf;

template <>
struct ModeOf<SwapAllocatorMode> {
  static constexpr std::string_view kName = "swap_allocator";
  static constexpr std::array<std::string_view, 3> kNames = {"blist", "blist-1999", "list-3x"};
  static constexpr std::string_view kWhat = "how free swap blocks are found: today's, the article's, 3.x's";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = SwapAllocatorMode::kBlist;
  static constexpr auto kArticle = SwapAllocatorMode::kBlist1999;
  static constexpr auto kModern = SwapAllocatorMode::kBlist;
};

template <>
struct ModeOf<SwapMetaMode> {
  static constexpr std::string_view kName = "swap_meta";
  static constexpr std::array<std::string_view, 3> kNames = {"trie", "hash", "array-3x"};
  static constexpr std::string_view kWhat =
      "where a page's swap block is noted: today's, the article's, 3.x's";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = SwapMetaMode::kTrie;
  static constexpr auto kArticle = SwapMetaMode::kHash;
  static constexpr auto kModern = SwapMetaMode::kTrie;
};

template <>
struct ModeOf<CompressionMode> {
  static constexpr std::string_view kName = "compression";
  static constexpr std::array<std::string_view, 2> kNames = {"lz4", "zstd"};
  static constexpr std::string_view kWhat = "how pages are packed in the compressed store (--compressed)";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = CompressionMode::kLz4;
  static constexpr auto kArticle = CompressionMode::kLz4;  // it has no compressed memory
  static constexpr auto kModern = CompressionMode::kLz4;
};

template <>
struct ModeOf<ThresholdMode> {
  static constexpr std::string_view kName = "thresholds";
  static constexpr std::array<std::string_view, 3> kNames = {"live", "article", "modern"};
  static constexpr std::string_view kWhat = "how many frames are kept free, and when paging starts";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = ThresholdMode::kLive;
  static constexpr auto kArticle = ThresholdMode::kArticle;
  static constexpr auto kModern = ThresholdMode::kModern;
};

template <>
struct ModeOf<ActiveScanMode> {
  static constexpr std::string_view kName = "active_scan";
  static constexpr std::array<std::string_view, 3> kNames = {"pressure", "requeue", "two-hand"};
  static constexpr std::string_view kWhat = "how the active queue is scanned";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = ActiveScanMode::kPressure;
  static constexpr auto kArticle = ActiveScanMode::kRequeue;
  static constexpr auto kModern = ActiveScanMode::kTwoHand;
};

template <>
struct ModeOf<PageoutTargetMode> {
  static constexpr std::string_view kName = "pageout_target";
  static constexpr std::array<std::string_view, 2> kNames = {"fixed", "pid"};
  static constexpr std::string_view kWhat = "how many frames a run of the page daemon tries to gain";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = PageoutTargetMode::kFixed;
  static constexpr auto kArticle = PageoutTargetMode::kFixed;
  static constexpr auto kModern = PageoutTargetMode::kPid;
};

template <>
struct ModeOf<LaundryMode> {
  static constexpr std::string_view kName = "laundry";
  static constexpr std::array<std::string_view, 3> kNames = {"clustered", "article", "background"};
  static constexpr std::string_view kWhat = "when dirty pages are written";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = LaundryMode::kClustered;
  static constexpr auto kArticle = LaundryMode::kArticle;
  static constexpr auto kModern = LaundryMode::kBackground;
};

template <>
struct ModeOf<CacheQueueMode> {
  static constexpr std::string_view kName = "cache_queue";
  static constexpr std::array<std::string_view, 3> kNames = {"surplus", "on", "off"};
  static constexpr std::string_view kWhat =
      "whether clean unused pages wait on a queue before they are freed";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = CacheQueueMode::kSurplus;
  static constexpr auto kArticle = CacheQueueMode::kOn;
  static constexpr auto kModern = CacheQueueMode::kOff;
};

template <>
struct ModeOf<ProactiveMode> {
  static constexpr std::string_view kName = "proactive";
  static constexpr std::array<std::string_view, 2> kNames = {"off", "on"};
  static constexpr std::string_view kWhat = "page out idle pages while memory is not short";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = ProactiveMode::kOff;
  static constexpr auto kArticle = ProactiveMode::kOff;
  static constexpr auto kModern = ProactiveMode::kOn;
};

template <>
struct ModeOf<DropBehindMode> {
  static constexpr std::string_view kName = "drop_behind";
  static constexpr std::array<std::string_view, 2> kNames = {"off", "on"};
  static constexpr std::string_view kWhat = "deactivate what a sequential stream leaves behind";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = DropBehindMode::kOff;
  static constexpr auto kArticle = DropBehindMode::kOff;
  static constexpr auto kModern = DropBehindMode::kOn;
};

template <>
struct ModeOf<DontNeedMode> {
  static constexpr std::string_view kName = "dont_need";
  static constexpr std::array<std::string_view, 3> kNames = {"pageout", "weighted", "head"};
  static constexpr std::string_view kWhat = "what FreeBSD's MADV_DONTNEED does with the pages";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = DontNeedMode::kPageOut;
  static constexpr auto kArticle = DontNeedMode::kWeighted;
  static constexpr auto kModern = DontNeedMode::kHead;
};

template <>
struct ModeOf<ReferenceMode> {
  static constexpr std::string_view kName = "references";
  static constexpr std::array<std::string_view, 2> kNames = {"bits", "withdrawal"};
  static constexpr std::string_view kWhat = "how the use of pages is seen";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = ReferenceMode::kBits;
  static constexpr auto kArticle = ReferenceMode::kBits;
  static constexpr auto kModern = ReferenceMode::kBits;
};

template <>
struct ModeOf<FrameOrderMode> {
  static constexpr std::string_view kName = "frame_order";
  static constexpr std::array<std::string_view, 3> kNames = {"buddy", "coloured", "reservation"};
  static constexpr std::string_view kWhat = "which free frame a page gets: runs, page colours, superpages";
  static constexpr ModeScope kScope = ModeScope::kSoftMachineOnly;
  static constexpr auto kHybrid = FrameOrderMode::kBuddy;
  static constexpr auto kArticle = FrameOrderMode::kColoured;
  static constexpr auto kModern = FrameOrderMode::kReservation;
};

template <>
struct ModeOf<CollapseMode> {
  static constexpr std::string_view kName = "collapse";
  static constexpr std::array<std::string_view, 3> kNames = {"guarded", "article", "modern"};
  static constexpr std::string_view kWhat = "when chains of memory objects are shortened";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = CollapseMode::kGuarded;
  static constexpr auto kArticle = CollapseMode::kArticle;
  static constexpr auto kModern = CollapseMode::kModern;
};

template <>
struct ModeOf<CowMoveMode> {
  static constexpr std::string_view kName = "cow_move";
  static constexpr std::array<std::string_view, 2> kNames = {"off", "on"};
  static constexpr std::string_view kWhat = "a copy-on-write page with one owner left is moved, not copied";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = CowMoveMode::kOn;
  static constexpr auto kArticle = CowMoveMode::kOn;
  static constexpr auto kModern = CowMoveMode::kOn;
};

template <>
struct ModeOf<DeadPagesMode> {
  static constexpr std::string_view kName = "dead_pages";
  static constexpr std::array<std::string_view, 2> kNames = {"keep", "reclaim"};
  static constexpr std::string_view kWhat = "what becomes of pages that every shadow hides";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = DeadPagesMode::kReclaim;
  static constexpr auto kArticle = DeadPagesMode::kKeep;
  static constexpr auto kModern = DeadPagesMode::kKeep;
};

template <>
struct ModeOf<PvMode> {
  static constexpr std::string_view kName = "pv";
  static constexpr std::array<std::string_view, 2> kNames = {"list", "chunk"};
  static constexpr std::string_view kWhat = "reverse-map entries: the article's fixed pool, today's chunks";
  static constexpr ModeScope kScope = ModeScope::kSoftMachineOnly;
  static constexpr auto kHybrid = PvMode::kList;
  static constexpr auto kArticle = PvMode::kList;
  static constexpr auto kModern = PvMode::kChunk;
};

template <>
struct ModeOf<ForkTablesMode> {
  static constexpr std::string_view kName = "fork_tables";
  static constexpr std::array<std::string_view, 3> kNames = {"drop", "throw", "copy"};
  static constexpr std::string_view kWhat =
      "page tables at fork: the child starts without, the parent too, or the child gets copies";
  static constexpr ModeScope kScope = ModeScope::kSoftMachineOnly;
  static constexpr auto kHybrid = ForkTablesMode::kCopy;
  static constexpr auto kArticle = ForkTablesMode::kDrop;
  static constexpr auto kModern = ForkTablesMode::kCopy;
};

template <>
struct ModeOf<SuperpagesMode> {
  static constexpr std::string_view kName = "superpages";
  static constexpr std::array<std::string_view, 2> kNames = {"off", "promote"};
  static constexpr std::string_view kWhat = "mappings of 2 MiB, by promotion of full page tables";
  static constexpr ModeScope kScope = ModeScope::kSoftMachineOnly;
  static constexpr auto kHybrid = SuperpagesMode::kOff;
  static constexpr auto kArticle = SuperpagesMode::kOff;
  static constexpr auto kModern = SuperpagesMode::kPromote;
};

template <>
struct ModeOf<SharedTablesMode> {
  static constexpr std::string_view kName = "shared_tables";
  static constexpr std::array<std::string_view, 2> kNames = {"off", "on"};
  static constexpr std::string_view kWhat = "page tables shared at fork until the first change";
  static constexpr ModeScope kScope = ModeScope::kSoftMachineOnly;
  static constexpr auto kHybrid = SharedTablesMode::kOff;
  static constexpr auto kArticle = SharedTablesMode::kOff;
  static constexpr auto kModern = SharedTablesMode::kOff;
};

template <>
struct ModeOf<PageTableMode> {
  static constexpr std::string_view kName = "page_table";
  static constexpr std::array<std::string_view, 2> kNames = {"radix", "hashed"};
  static constexpr std::string_view kWhat = "page tables: a tree for each space, or one hashed table";
  static constexpr ModeScope kScope = ModeScope::kSoftMachineOnly;
  static constexpr auto kHybrid = PageTableMode::kRadix;
  static constexpr auto kArticle = PageTableMode::kRadix;
  static constexpr auto kModern = PageTableMode::kRadix;
};

template <>
struct ModeOf<MapIndexMode> {
  static constexpr std::string_view kName = "map";
  static constexpr std::array<std::string_view, 4> kNames = {"avl", "splay", "red-black", "b-tree"};
  static constexpr std::string_view kWhat = "what finds the entries of an address space, and its gaps";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = MapIndexMode::kAvl;
  static constexpr auto kArticle = MapIndexMode::kSplay;  // its list is a baseline: src/lab/baselines
  static constexpr auto kModern = MapIndexMode::kSplay;
};

template <>
struct ModeOf<PrefaultMode> {
  static constexpr std::string_view kName = "prefault";
  static constexpr std::array<std::string_view, 4> kNames = {"off", "fault", "map+fault", "cluster"};
  static constexpr std::string_view kWhat = "which resident neighbours are mapped along with a page";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = PrefaultMode::kCluster;
  static constexpr auto kArticle = PrefaultMode::kMapAndFault;
  static constexpr auto kModern = PrefaultMode::kMapAndFault;
};

template <>
struct ModeOf<ReadAheadMode> {
  static constexpr std::string_view kName = "readahead";
  static constexpr std::array<std::string_view, 3> kNames = {"off", "article", "adaptive"};
  static constexpr std::string_view kWhat = "how much a page-in reads beside the wanted page";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = ReadAheadMode::kAdaptive;
  static constexpr auto kArticle = ReadAheadMode::kArticle;
  static constexpr auto kModern = ReadAheadMode::kAdaptive;
};

template <>
struct ModeOf<PreZeroMode> {
  static constexpr std::string_view kName = "prezero";
  static constexpr std::array<std::string_view, 3> kNames = {"off", "idle", "idle-more"};
  static constexpr std::string_view kWhat = "zero free frames while there is nothing else to do";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = PreZeroMode::kOff;
  static constexpr auto kArticle = PreZeroMode::kIdle;
  static constexpr auto kModern = PreZeroMode::kOff;
};

template <>
struct ModeOf<PreCopyMode> {
  static constexpr std::string_view kName = "precopy";
  static constexpr std::array<std::string_view, 4> kNames = {"off", "fork", "exec", "both"};
  static constexpr std::string_view kWhat = "copy what is likely to be written at fork, at exec";
  static constexpr ModeScope kScope = ModeScope::kSoftMachineOnly;
  static constexpr auto kHybrid = PreCopyMode::kOff;
  static constexpr auto kArticle = PreCopyMode::kOff;
  static constexpr auto kModern = PreCopyMode::kOff;
};

template <class... Modes>
struct ModeList {
  static constexpr std::size_t kCount = sizeof...(Modes);

  template <class Mode>
  static constexpr std::size_t index_of() {
    static_assert((std::is_same_v<Mode, Modes> || ...), "this mechanism is not in AllModes");
    std::size_t at = 0;
    (void)((std::is_same_v<Mode, Modes> ? true : (++at, false)) || ...);
    return at;
  }
  template <class Mode>
  static constexpr Mechanism mechanism_of() {
    using M = ModeOf<Mode>;
    return {M::kName,
            M::kNames,
            M::kWhat,
            M::kScope,
            {static_cast<std::uint8_t>(M::kHybrid), static_cast<std::uint8_t>(M::kArticle),
             static_cast<std::uint8_t>(M::kModern)}};
  }
  static constexpr std::array<Mechanism, kCount> kMechanisms = {mechanism_of<Modes>()...};
};

/// Every mechanism, in the order of the article's sections where it has one.
using AllModes =
    ModeList<SwapMetaMode, SwapAllocatorMode, CompressionMode, ThresholdMode, ActiveScanMode,
             PageoutTargetMode, LaundryMode, CacheQueueMode, ProactiveMode, DropBehindMode, DontNeedMode,
             ReferenceMode, FrameOrderMode, CollapseMode, CowMoveMode, DeadPagesMode, PvMode, ForkTablesMode,
             SuperpagesMode, PageTableMode, SharedTablesMode, MapIndexMode, PrefaultMode, ReadAheadMode,
             PreZeroMode, PreCopyMode>;

/// All mechanisms; VmModes numbers them by their place here.
inline constexpr std::span<const Mechanism> kMechanisms = AllModes::kMechanisms;

enum class ModeVerdict : std::uint8_t { kOk, kNoMechanism, kNoMode };

class VmModes {
 public:
  constexpr VmModes() : VmModes(Preset::kHybrid) {}
  constexpr explicit VmModes(Preset preset) {
    for (std::size_t i = 0; i < chosen_.size(); ++i) {
      chosen_[i] = kMechanisms[i].presets[static_cast<std::size_t>(preset)];
    }
  }

  template <class Mode>
  [[nodiscard]] constexpr Mode get() const {
    return static_cast<Mode>(chosen_[AllModes::index_of<Mode>()]);
  }
  template <class Mode>
  constexpr VmModes& set(Mode mode) {
    chosen_[AllModes::index_of<Mode>()] = static_cast<std::uint8_t>(mode);
    return *this;
  }

  /// By names, as after --set. Nothing changes unless kOk.
  [[nodiscard]] ModeVerdict set_named(std::string_view mechanism, std::string_view mode);

  /// The same, but for mechanisms of simulated machines only, which keep their default: what a preset means
  /// for `enchilada run`.
  [[nodiscard]] VmModes on_live_machine() const;

  /// By numbers, for whoever walks the registry: mechanism < kMechanisms.size(), mode < its modes.size().
  [[nodiscard]] std::uint8_t number(std::size_t mechanism) const { return chosen_[mechanism]; }
  void set_number(std::size_t mechanism, std::uint8_t mode);

  friend constexpr bool operator==(const VmModes&, const VmModes&) = default;

 private:
  std::array<std::uint8_t, AllModes::kCount> chosen_{};
};
static_assert(std::is_trivially_copyable_v<VmModes>);

/// The name of a mode, as in --set.
template <class Mode>
requires requires {
  ModeOf<Mode>::kNames;
}
[[nodiscard]] constexpr std::string_view name_of(Mode mode) {
  return ModeOf<Mode>::kNames[static_cast<std::size_t>(mode)];
}

}  // namespace enchilada
