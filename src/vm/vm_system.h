// VmSystem: one engine instance. It reaches everything: frames, pages, queues, objects, pagers, counters.
//
// No mutable globals anywhere: two engines may live in one process. The machine (frames, mappings, time) and
// the backing store come in through VmSystemConfig; the creator owns them and they outlive the engine.
#pragma once

#include <cstdint>
#include <memory>

#include "base/arena.h"
#include "base/function_ref.h"
#include "base/mutex.h"
#include "vm/clock.h"
#include "vm/phys.h"
#include "vm/pmap.h"
#include "vm/vm_meter.h"
#include "vm/vm_modes.h"
#include "vm/vm_pager.h"
#include "vm/vm_thresholds.h"

namespace enchilada {

class VmObject;
class VmMap;
class VmObjectZone;
class VmPhys;
class PageQueues;
class PageDaemon;
class MapIndex;
struct MapIndexParts;
class PageoutOps;
class ReplacementPolicy;
class PrefaultPolicy;
class ReadAheadPolicy;
class PreZeroPolicy;
class PreCopyPolicy;
struct Page;

/// See vm_replacement.h.
using ReplacementPolicyMaker = std::unique_ptr<ReplacementPolicy> (*)(PageoutOps& ops);
/// Makes the search structure of a map (vm_map_index.h).
using MapIndexFactory = std::unique_ptr<MapIndex> (*)(const MapIndexParts&);

/// Sizes that tests and the runtime set. Zero = the engine's own choice.
struct VmTunables {
  PageCount zero_fill_cluster{16};  // neighbours zero-filled in one fault at most
  PageCount readahead_min{8};
  PageCount readahead_max{64};        // pages of one page-in at most
  unsigned readahead_runs{4};         // places in the store that one page-in reads at most
  PageCount pageout_cluster{64};      // pages of one write at most
  PageCount withdraw_cluster{16};     // neighbours unmapped together when use is sampled by unmapping
  PageCount prefault_cluster{16};     // resident neighbours mapped in one soft fault at most
  PageCount regroup_cluster{8};       // neighbours written anew so that one read brings them back; 1 = never
  ByteCount colour_cache{128 << 10};  // the cache that frame_order=coloured colours for; 16K .. 1M
  unsigned reservation_order = 9;     // frame_order=reservation: blocks of 2^n frames, at most 2^9
  PageCount free_min{0};              // allocation reclaims below this many free frames
  PageCount free_target{0};           // reclaim stops here
};

struct VmSystemConfig {
  PhysicalMemory& phys;
  PmapSystem& pmaps;
  Pager& swap;
  Clock& clock;
  VmCounters& counters;
  Arena& arena;
  VmTunables tunables{};
  VmModes modes{};
  ReplacementPolicyMaker make_policy = nullptr;  // null: FreeBSD's queues, in the modes above
  MapIndexFactory map_index =
      nullptr;  // one that is no mode (a baseline of the laboratory); null: modes' own
};

class VmSystem final : public PageStateSink {
 public:
  /// Null when the arena is too small for the page array.
  static std::unique_ptr<VmSystem> create(const VmSystemConfig& config);
  ~VmSystem();
  VmSystem(const VmSystem&) = delete;
  VmSystem& operator=(const VmSystem&) = delete;

  [[nodiscard]] PhysicalMemory& phys() const { return config_.phys; }
  [[nodiscard]] PmapSystem& pmaps() const { return config_.pmaps; }
  [[nodiscard]] Pager& swap() const { return config_.swap; }
  [[nodiscard]] Clock& clock() const { return config_.clock; }
  [[nodiscard]] VmCounters& counters() const { return config_.counters; }
  [[nodiscard]] Arena& arena() const { return config_.arena; }
  [[nodiscard]] const VmTunables& tunables() const { return config_.tunables; }
  /// For whoever makes the parts of an engine; algorithms do not ask.
  [[nodiscard]] const VmModes& modes() const { return config_.modes; }
  [[nodiscard]] ReplacementPolicyMaker policy_maker() const { return config_.make_policy; }

  [[nodiscard]] MapIndexFactory map_index() const { return config_.map_index; }

  [[nodiscard]] VmObjectZone& objects() const { return *objects_; }
  [[nodiscard]] VmPhys& free_frames() const { return *free_frames_; }
  [[nodiscard]] PageQueues& queues() const { return *queues_; }
  [[nodiscard]] PageDaemon& daemon() const { return *daemon_; }
  [[nodiscard]] const PrefaultPolicy& prefault() const { return *prefault_; }
  [[nodiscard]] const ReadAheadPolicy& readahead() const { return *readahead_; }
  [[nodiscard]] PreCopyPolicy& precopy() const { return *precopy_; }

  /// The machine has nothing to do just now: a slice of what can be done ahead (zeroing free frames). No lock
  /// held. Returns how much was done; 0 = nothing is left to do.
  PageCount idle();

  /// The metadata of a frame; frame < phys().frame_limit().
  [[nodiscard]] Page& page(FrameNumber frame) const;
  [[nodiscard]] FrameNumber frame_of(const Page& page) const;

  /// Levels of free frames; they follow the number of granted frames (VmPhys says when that changes).
  [[nodiscard]] const CurrentThresholds& thresholds() const { return thresholds_; }
  void set_granted(PageCount granted);
  /// Frames that allocation should leave free, and how many reclaim aims at.
  [[nodiscard]] std::uint64_t free_min() const { return thresholds_.at(&PageThresholds::free_min); }
  [[nodiscard]] std::uint64_t free_target() const { return thresholds_.at(&PageThresholds::free_target); }
  /// Pages that should wait on the cache queue beside those; and whether cache pages are as good as free
  /// ones.
  [[nodiscard]] std::uint64_t cache_min() const { return thresholds_.at(&PageThresholds::cache_min); }
  [[nodiscard]] bool cache_counts() const { return thresholds_.at(&PageThresholds::cache_counts) != 0; }
  /// Pages that an allocation finds: the free ones, and the cache's where they count.
  [[nodiscard]] std::uint64_t at_hand() const;
  /// Fewer are at hand than should be: time for the page daemon.
  [[nodiscard]] bool is_short() const;
  /// Asks the machine for about `wanted` more frames (more, while it is generous); returns what came. No lock
  /// held.
  PageCount grow(PageCount wanted);
  /// False after the machine has refused to give more; each reclaim run asks again.
  [[nodiscard]] bool may_grow() const { return may_grow_.load(std::memory_order_relaxed); }

  /// Every fault holds the gate shared. Whoever needs the engine at rest (a kernel fork) takes it
  /// exclusively, before any other lock; other users of the engine that may run at that time hold it shared,
  /// too. Not recursive.
  [[nodiscard]] SharedMutex& gate() RETURN_CAPABILITY(gate_) { return gate_; }
  /// Calls visit(frame, page) for every frame number up to the limit, granted or not.
  void for_each_page(FunctionRef<void(FrameNumber, Page&)> visit);
  /// Each part's own invariants. The engine is at rest.
  void validate();

  void note_modified(FrameNumber frame) override;
  void note_referenced(FrameNumber frame) override;

 private:
  explicit VmSystem(const VmSystemConfig& config);
  VmSystemConfig config_;
  const ThresholdRule threshold_rule_;
  CurrentThresholds thresholds_;
  SharedMutex gate_;
  std::atomic<bool> may_grow_{true};
  Page* pages_ = nullptr;  // frame_limit() of them, in the arena
  std::unique_ptr<PrefaultPolicy> prefault_;
  std::unique_ptr<ReadAheadPolicy> readahead_;
  std::unique_ptr<PreZeroPolicy> prezero_;
  std::unique_ptr<PreCopyPolicy> precopy_;
  std::unique_ptr<VmObjectZone> objects_;
  std::unique_ptr<VmPhys> free_frames_;
  std::unique_ptr<PageQueues> queues_;
  std::unique_ptr<PageDaemon> daemon_;
};

}  // namespace enchilada
