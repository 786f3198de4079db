// Pmap and PmapSystem: mappings, as the engine sees them.
//
// The law of the pmap (from the article): a pmap holds no state that cannot be thrown away. Every mapping
// that is not wired may vanish at any time and costs one soft fault. The engine never asks a pmap what is
// resident.
//
// A Pmap is one address space. PmapSystem is what all address spaces of a machine share: operations on
// frames, whichever pmaps map them. Machines may map a frame at one address only (the host does): enter()
// then steals it.
//
// Shared preconditions: addresses are page aligned; every frame passed to enter() is busy (held by the
// caller). Modified and referenced bits that a mapping carried are reported to the PageStateSink before the
// mapping is gone, with the frame; the sink never blocks. A machine without dirty bits reports every frame
// that was mapped writable as modified.
#pragma once

#include <memory>
#include <span>

#include "vm/vm_types.h"

namespace enchilada {

/// Receives what mappings knew when they are removed. Implemented by the engine; lock-free.
class PageStateSink {
 public:
  virtual void note_modified(FrameNumber frame) = 0;
  virtual void note_referenced(FrameNumber frame) = 0;

 protected:
  ~PageStateSink() = default;
};

enum class Wiring : std::uint8_t { kNotWired, kWired };

class Pmap {
 public:
  virtual ~Pmap() = default;

  /// Maps frames[i] at va + i pages with `prot` (kRead, kReadWrite, or with kExecute), replacing what was
  /// there; mapping the frame that is already there changes its protection only. Returns how many of the
  /// leading frames are now mapped: the first always, unless the machine is out of table memory or the
  /// address raced away (0: the access will simply fault again). Called with the frames busy; may be called
  /// with map and object locks held.
  virtual PageCount enter(VirtAddr va, std::span<const FrameNumber> frames, Prot prot, Access access,
                          Wiring wiring) = 0;

  /// A hint: enter() of this frame at this address will probably follow soon, and what it will touch may be
  /// fetched into the caches meanwhile. Takes no lock, changes nothing, promises nothing.
  virtual void expect(VirtAddr va, FrameNumber frame) const { (void)va, (void)frame; }

  /// Removes every mapping in the range, wired ones too.
  virtual void remove(VirtRange range) = 0;

  /// The space ends: remove() of all its ranges will follow. A machine that finds the mappings faster without
  /// ranges removes them now (FreeBSD's pmap_remove_pages).
  virtual void remove_pages() {}

  /// Takes rights away: after it no mapping in the range allows more than `prot` (kNone removes).
  virtual void protect(VirtRange range, Prot prot) = 0;

  /// Mappings in the range are wired no more: the law holds for them again. Nothing to do where it makes no
  /// difference.
  virtual void unwire(VirtRange range) { (void)range; }

  /// At fork, before private memory is made read-only: the machine may throw all mappings of the space away
  /// instead, if that is cheaper. True: none is left. Called while nobody can enter any.
  virtual bool throw_away_for_fork() { return false; }

  /// Copies mappings read-only from `source` at the same addresses; may do nothing. Used at fork.
  virtual void copy_from(Pmap& source, VirtRange range) {
    (void)source;
    (void)range;
  }
};

class PmapSystem {
 public:
  virtual ~PmapSystem() = default;

  [[nodiscard]] virtual std::unique_ptr<Pmap> create_pmap() = 0;

  /// Set once, before the first enter().
  virtual void set_sink(PageStateSink& sink) = 0;

  /// True when ts_referenced() means something. Without reference bits (the host) the page daemon samples use
  /// by unmapping a page and seeing whether it faults back.
  [[nodiscard]] virtual bool has_reference_bits() const = 0;

  /// Removes all mappings of all these frames (batch: one shoot-down where the machine can). refused[i] is
  /// set true when frame i is pinned by the machine just now (a system call is using it) and stays mapped.
  /// The frames are exclusively busy. Neighbours in `frames` that are neighbours in memory are cheapest.
  virtual void remove_all(std::span<const FrameNumber> frames, std::span<bool> refused) = 0;

  /// remove_all() of frames whose contents nobody needs any more: they may read as anything afterwards, until
  /// they are filled, zeroed or copied to. So a machine may drop them where they are mapped.
  virtual void discard_all(std::span<const FrameNumber> frames, std::span<bool> refused) {
    remove_all(frames, refused);
  }

  /// Takes write access away from all mappings of the frame (busy); their modified bits go to the sink.
  virtual void remove_write(FrameNumber frame) = 0;

  /// Tests and clears reference bits of the frame's mappings; counts at most 5.
  virtual unsigned ts_referenced(FrameNumber frame) = 0;

  /// A mapping of the frame has its modified bit set.
  [[nodiscard]] virtual bool is_modified(FrameNumber frame) = 0;

  /// Clears modified bits. Only meaningful after remove_write().
  virtual void clear_modify(FrameNumber frame) = 0;
};

}  // namespace enchilada
