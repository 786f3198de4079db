// HostMachine: mappings (Pmap, PmapSystem). Frames are in host_frames.cc, creation and fork in
// host_lifecycle.cc. Locking and invariants: host_machine.h.
#include "pmap/host/host_machine.h"

#include <sys/syscall.h>

#include "base/check.h"
#include "base/raw_syscall.h"

namespace enchilada {

// --- HostPmap: a view of the window ----------------------------------------------------------------------

void HostPmap::widen(VirtRange range) {
  std::uint64_t low = lowest_.load(std::memory_order_relaxed);
  while (range.start.value() < low && !lowest_.compare_exchange_weak(low, range.start.value())) {
  }
  std::uint64_t high = highest_.load(std::memory_order_relaxed);
  while (range.end.value() > high && !highest_.compare_exchange_weak(high, range.end.value())) {
  }
}

PageCount HostPmap::enter(VirtAddr va, std::span<const FrameNumber> frames, Prot prot, Access, Wiring) {
  widen({va, va + to_bytes(PageCount{frames.size()})});
  return machine_.enter(va, frames, prot);
}
void HostPmap::remove(VirtRange range) {
  machine_.remove(range);
}
void HostPmap::protect(VirtRange range, Prot prot) {
  machine_.protect(range, prot);
}
HostPmap::~HostPmap() {
  machine_.remove({VirtAddr{lowest_.load()}, VirtAddr{highest_.load()}});
  machine_.pmaps_taken_.fetch_and(~(std::uint64_t{1} << place_), std::memory_order_release);
}

std::unique_ptr<Pmap> HostMachine::create_pmap() {
  for (;;) {
    std::uint64_t taken = pmaps_taken_.load(std::memory_order_relaxed);
    CHECK(~taken != 0);
    const auto place = static_cast<unsigned>(__builtin_ctzll(~taken));
    if (!pmaps_taken_.compare_exchange_weak(taken, taken | (std::uint64_t{1} << place),
                                            std::memory_order_acquire)) {
      continue;
    }
    return std::unique_ptr<Pmap>(new (static_cast<void*>(pmap_places_[place])) HostPmap(*this, place));
  }
}

// --- Going home ------------------------------------------------------------------------------------------

// The slots of [page, page + n) are locked by the caller and hold first, first + 1, ... Sends them home,
// run by run of equal protection. With `refused` the kernel's own pins are respected and reported; without,
// everything goes.
void HostMachine::home_locked(std::uint64_t page, FrameNumber first, std::uint64_t n, bool* refused) {
  std::uint64_t i = 0;
  while (i < n) {
    const FramePlace place = frames_.load(first + PageCount{i}).place;
    std::uint64_t len = 1;
    while (i + len < n && frames_.load(first + PageCount{i + len}).place == place) ++len;
    const bool writable = place == FramePlace::kWritable;
    if (writable && sink_ != nullptr) {
      for (std::uint64_t k = 0; k < len; ++k) sink_->note_modified(first + PageCount{i + k});
    }
    const std::uint64_t gone =
        mover_.leave(address(page + i), home(first + PageCount{i}), len, writable, refused == nullptr);
    for (std::uint64_t k = 0; k < gone; ++k) {
      frames_.store(first + PageCount{i + k}, FramePlace::kHome);
      index_.set_locked(page + i + k, WindowIndex::kEmpty);
    }
    pages_left_.fetch_add(gone, std::memory_order_relaxed);
    i += gone;
    if (gone < len) {
      CHECK(refused != nullptr, page + i);
      refused[i++] = true;
    }
  }
}

// Sends one frame home from wherever it is mapped; false when a system call uses it (and `ask_pins`).
bool HostMachine::bring_home(FrameNumber frame, bool ask_pins) {
  for (;;) {
    const FrameState state = frames_.load(frame);
    if (!state.mapped()) return true;
    if (!index_.try_lock_if(state.page, WindowIndex::slot_of(frame))) {
      (void)index_.settled(state.page);  // remove() or a replacing enter() is at it
      continue;
    }
    bool refused = false;
    if (ask_pins) {
      withdraw_locked(state.page, frame, 1, &refused);
    } else {
      home_locked(state.page, frame, 1);
    }
    index_.unlock(state.page);
    return !refused;
  }
}

// --- enter -----------------------------------------------------------------------------------------------

PageCount HostMachine::enter(VirtAddr va, std::span<const FrameNumber> frames, Prot prot) {
  CHECK(page_aligned(va) && va >= window_.start && va < window_.end, va.value());
  CHECK(frames.size() <= (window_.end - va).value() >> kPageShift, va.value(), frames.size());
  if ((prot & Prot::kAll) == Prot::kNone) {
    remove({va, va + to_bytes(PageCount{frames.size()})});
    return PageCount{frames.size()};
  }
  const bool writable = allows(prot, Prot::kWrite);
  std::size_t done = 0;
  while (done < frames.size()) {
    const std::size_t n = frames.size() - done < kMaxRun ? frames.size() - done : kMaxRun;
    const PageCount got = enter_chunk(page_of(va) + done, frames.subspan(done, n), writable);
    done += got.value();
    if (got.value() < n) break;
  }
  return PageCount{done};
}

PageCount HostMachine::enter_chunk(std::uint64_t page, std::span<const FrameNumber> frames, bool writable) {
  // Frames mapped elsewhere come home first, before any slot here is locked (lock order: one run at a
  // time). They are busy, so nobody maps them again meanwhile.
  std::size_t n = 0;
  for (; n < frames.size(); ++n) {
    DCHECK(frames[n].value() < frames_.limit().value(), frames[n].value());
    const FrameState state = frames_.load(frames[n]);
    if (!state.mapped() || state.page == page + n) continue;
    if (!bring_home(frames[n], /*ask_pins=*/true)) break;
    stolen_.fetch_add(1, std::memory_order_relaxed);
  }
  if (n ==
      0) {  // a system call holds the frame at its other address: the access faults again until that is over
    raw_syscall(SYS_sched_yield);
    return PageCount{0};
  }
  for (std::size_t i = 0; i < n; ++i) index_.lock(page + i);
  const std::uint64_t done = enter_locked(page, frames.first(n), writable);
  for (std::size_t i = 0; i < n; ++i) index_.unlock(page + i);
  pages_entered_.fetch_add(done, std::memory_order_relaxed);
  return PageCount{done};
}

std::uint64_t HostMachine::enter_locked(std::uint64_t page, std::span<const FrameNumber> frames,
                                        bool writable) {
  index_.mark_block(page);
  index_.mark_block(page + frames.size() - 1);
  std::uint64_t i = 0;
  bool all = true;
  while (i < frames.size() && all) {
    const std::uint32_t here = index_.content(page + i);
    if (here == WindowIndex::slot_of(frames[i])) {
      i += reprotect_here(page + i, frames.subspan(i), writable);
      continue;
    }
    if (here != WindowIndex::kEmpty) home_locked(page + i, WindowIndex::frame_of(here), 1);
    i += enter_absent(page + i, frames.subspan(i), writable, all);
  }
  return i;
}

// The leading frames that are here already, with equal protection, get the protection wanted. Returns how
// many.
std::uint64_t HostMachine::reprotect_here(std::uint64_t page, std::span<const FrameNumber> frames,
                                          bool writable) {
  const FramePlace place = frames_.load(frames[0]).place;
  std::uint64_t n = 1;
  while (n < frames.size() && index_.content(page + n) == WindowIndex::slot_of(frames[n]) &&
         frames_.load(frames[n]).place == place) {
    ++n;
  }
  const FramePlace wanted = writable ? FramePlace::kWritable : FramePlace::kReadOnly;
  if (place == wanted) return n;
  // A neighbour that is entered along must not lose the write access that a system call relies on just now
  // (EFAULT). Whoever means it calls protect() or remove_write(). No race: a pinner looks at the slot
  // (resident()) after pinning.
  if (!writable && pins_ != nullptr && pins_->pinned(pages_range(page, n))) return n;
  if (!writable) {
    write_protect_locked(page, n);
    return n;
  }
  mover_.set_writable(address(page), n, true);
  for (std::uint64_t i = 0; i < n; ++i) frames_.store(frames[i], FramePlace::kWritable, page + i);
  return n;
}

// The leading frames that are all unpopulated, or all home side by side, go to the empty slots from `page`
// on. `all` turns false when the kernel did less.
std::uint64_t HostMachine::enter_absent(std::uint64_t page, std::span<const FrameNumber> frames,
                                        bool writable, bool& all) {
  const FramePlace place = frames_.load(frames[0]).place;
  const bool fresh = place == FramePlace::kUnpopulated;
  std::uint64_t n = 1;
  while (n < frames.size() && index_.content(page + n) == WindowIndex::kEmpty &&
         frames_.load(frames[n]).place == place && (fresh || frames[n] == frames[0] + PageCount{n})) {
    ++n;
  }
  const std::uint64_t got = fresh ? mover_.enter_zero(address(page), n, writable)
                                  : mover_.enter(address(page), home(frames[0]), n, writable);
  for (std::uint64_t i = 0; i < got; ++i) {
    frames_.store(frames[i], writable ? FramePlace::kWritable : FramePlace::kReadOnly, page + i);
    index_.set_locked(page + i, WindowIndex::slot_of(frames[i]));
  }
  all = got == n;
  return got;
}

// --- remove, protect -------------------------------------------------------------------------------------

// Calls visit(page, n) for runs of mapped window pages, their slots locked. `empties`: the visitor empties
// them all.
template <class Visit>
void HostMachine::for_each_mapped_run(VirtRange range, bool empties, Visit visit) {
  const VirtAddr from = range.start < window_.start ? window_.start : range.start;
  const VirtAddr to = range.end > window_.end ? window_.end : range.end;
  if (from >= to) return;
  std::uint64_t page = page_of(from);
  const std::uint64_t end = page_of(page_ceil(to));
  constexpr std::uint64_t kBlock = WindowIndex::kBlockPages;
  while (page < end) {
    const std::uint64_t block = index_.next_block(page / kBlock, (end + kBlock - 1) / kBlock);
    if (block * kBlock > page) page = block * kBlock;
    if (page >= end) return;
    const std::uint64_t block_end = (block + 1) * kBlock < end ? (block + 1) * kBlock : end;
    if (empties && block_end - page == kBlock) index_.clear_block(block);
    while (page < block_end) {
      const std::uint32_t slot = index_.peek(page) == WindowIndex::kEmpty ? 0 : index_.settled(page);
      if (slot == WindowIndex::kEmpty) {
        ++page;
        continue;
      }
      if (!index_.try_lock_if(page, slot)) continue;
      std::uint64_t n = 1;
      for (; page + n < block_end && n < kMaxRun; ++n) {
        const std::uint32_t next = index_.peek(page + n);
        if (next == WindowIndex::kEmpty || (next & WindowIndex::kLocked) != 0) break;
        if (!index_.try_lock_if(page + n, next)) break;
      }
      visit(page, n);
      for (std::uint64_t i = 0; i < n; ++i) index_.unlock(page + i);
      page += n;
    }
  }
}

void HostMachine::remove(VirtRange range) {
  for_each_mapped_run(range, /*empties=*/true, [this](std::uint64_t page, std::uint64_t n) {
    std::uint64_t i = 0;
    while (i < n) {  // side by side at home, too: one kernel call each
      const std::uint32_t first = index_.content(page + i);
      std::uint64_t len = 1;
      while (i + len < n && index_.content(page + i + len) == first + len) ++len;
      home_locked(page + i, WindowIndex::frame_of(first), len);
      i += len;
    }
  });
}

void HostMachine::protect(VirtRange range, Prot prot) {
  if ((prot & Prot::kAll) == Prot::kNone) {
    remove(range);
    return;
  }
  if (allows(prot, Prot::kWrite)) return;
  for_each_mapped_run(range, /*empties=*/false, [this](std::uint64_t page, std::uint64_t n) {
    std::uint64_t i = 0;
    while (i < n) {
      std::uint64_t len = 0;
      while (i + len < n && frames_.load(WindowIndex::frame_of(index_.content(page + i + len))).place ==
                                FramePlace::kWritable) {
        ++len;
      }
      if (len > 0) write_protect_locked(page + i, len);
      i += len + 1;
    }
  });
}

// The slots of the run are locked and all its pages are present and writable (rule 13: never protect absent
// ones).
void HostMachine::write_protect_locked(std::uint64_t page, std::uint64_t n) {
  mover_.set_writable(address(page), n, false);
  for (std::uint64_t i = 0; i < n; ++i) {
    const FrameNumber frame = WindowIndex::frame_of(index_.content(page + i));
    if (sink_ != nullptr) sink_->note_modified(frame);
    frames_.store(frame, FramePlace::kReadOnly, page + i);
  }
}

void HostMachine::remove_write(FrameNumber frame) {
  for (;;) {
    const FrameState state = frames_.load(frame);
    if (state.place != FramePlace::kWritable) return;
    if (!index_.try_lock_if(state.page, WindowIndex::slot_of(frame))) {
      (void)index_.settled(state.page);
      continue;
    }
    if (frames_.load(frame).place == FramePlace::kWritable) write_protect_locked(state.page, 1);
    index_.unlock(state.page);
    return;
  }
}

bool HostMachine::is_modified(FrameNumber frame) {
  return frames_.load(frame).place == FramePlace::kWritable;
}

// --- remove_all ------------------------------------------------------------------------------------------

void HostMachine::remove_all(std::span<const FrameNumber> frames, std::span<bool> refused) {
  CHECK(refused.size() >= frames.size());
  std::size_t i = 0;
  while (i < frames.size()) i += withdraw_run(frames.subspan(i), refused.subspan(i));
}

// Handles the leading frames that are side by side at home and in the window; returns how many (0: try
// again).
std::size_t HostMachine::withdraw_run(std::span<const FrameNumber> frames, std::span<bool> refused) {
  const FrameState state = frames_.load(frames[0]);
  refused[0] = false;
  if (!state.mapped()) return 1;
  std::size_t n = 1;
  while (n < frames.size() && n < kMaxRun && frames[n] == frames[0] + PageCount{n}) {
    const FrameState next = frames_.load(frames[n]);
    if (!next.mapped() || next.page != state.page + n) break;
    refused[n++] = false;
  }
  std::size_t locked = 0;
  while (locked < n && index_.try_lock_if(state.page + locked, WindowIndex::slot_of(frames[locked])))
    ++locked;
  if (locked == 0) {  // remove() is at it: look again when it is through
    (void)index_.settled(state.page);
    return 0;
  }
  withdraw_locked(state.page, frames[0], locked, refused.data());
  for (std::size_t i = 0; i < locked; ++i) index_.unlock(state.page + i);
  return locked;
}

// Asks the pins about the run and sends home what nobody uses: the whole run, or page by page.
void HostMachine::withdraw_locked(std::uint64_t page, FrameNumber first, std::uint64_t n, bool* refused) {
  if (pins_ == nullptr) {
    home_locked(page, first, n, refused);
  } else {
    const PinSet::Withdrawal whole(*pins_, pages_range(page, n));
    if (whole.allowed()) {
      home_locked(page, first, n, refused);
    } else if (n == 1) {
      refused[0] = true;
    } else {
      for (std::uint64_t i = 0; i < n; ++i) {
        refused[i] = pins_->pinned(pages_range(page + i, 1));  // exact: our withdrawal covers the page
        if (!refused[i]) home_locked(page + i, first + PageCount{i}, 1, refused + i);
      }
    }
  }
  std::uint64_t count = 0;
  for (std::uint64_t i = 0; i < n; ++i) count += refused[i] ? 1 : 0;
  if (count > 0) refused_.fetch_add(count, std::memory_order_relaxed);
}

// --- discard_all -----------------------------------------------------------------------------------------

struct HostMachine::Scattered {
  struct Item {
    std::size_t index;  // in the span that the caller gave
    FrameNumber frame;
    std::uint64_t page;
  };
  static constexpr std::size_t kMost = FrameMover::kMaxDrops;
  std::array<Item, kMost> items;
  std::size_t count = 0;
  std::uint64_t lowest = ~std::uint64_t{0};
  std::uint64_t end = 0;

  void add(const Item& item) {
    items[count++] = item;
    lowest = item.page < lowest ? item.page : lowest;
    end = item.page + 1 > end ? item.page + 1 : end;
  }
};

void HostMachine::discard_all(std::span<const FrameNumber> frames, std::span<bool> refused) {
  CHECK(refused.size() >= frames.size());
  std::size_t i = 0;
  while (i < frames.size()) i += discard_some(frames.subspan(i), refused.subspan(i));
}

// Handles leading frames; returns how many (0: try again). The pages may be in any order, so their slots are
// only tried for: whoever waited for one while holding others could wait for ever.
std::size_t HostMachine::discard_some(std::span<const FrameNumber> frames, std::span<bool> refused) {
  Scattered these;
  std::size_t i = 0;
  for (; i < frames.size() && these.count < Scattered::kMost; ++i) {
    refused[i] = false;
    const FrameState state = frames_.load(frames[i]);
    if (!state.mapped()) continue;
    if (!index_.try_lock_if(state.page, WindowIndex::slot_of(frames[i]))) {
      if (i == 0) (void)index_.settled(state.page);  // remove() or protect() is at it
      break;
    }
    these.add({i, frames[i], state.page});
  }
  if (these.count == 0) return i;
  if (pins_ == nullptr) {
    drop_locked(these);
  } else {
    const PinSet::Withdrawal whole(*pins_, pages_range(these.lowest, these.end - these.lowest));
    if (!whole.allowed()) refuse_pinned(these, refused);
    drop_locked(these);
  }
  return i;
}

// Lets those go that a system call uses. Exact: the caller's withdrawal covers them all.
void HostMachine::refuse_pinned(Scattered& these, std::span<bool> refused) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < these.count; ++i) {
    const Scattered::Item item = these.items[i];
    if (pins_->pinned(pages_range(item.page, 1))) {
      refused[item.index] = true;
      refused_.fetch_add(1, std::memory_order_relaxed);
      index_.unlock(item.page);
    } else {
      these.items[kept++] = item;
    }
  }
  these.count = kept;
}

void HostMachine::drop_locked(const Scattered& these) {
  std::array<VirtAddr, Scattered::kMost> pages;
  for (std::size_t i = 0; i < these.count; ++i) {
    const Scattered::Item& item = these.items[i];
    if (sink_ != nullptr && frames_.load(item.frame).place == FramePlace::kWritable) {
      sink_->note_modified(item.frame);
    }
    pages[i] = address(item.page);
  }
  mover_.drop_pages(std::span(pages).first(these.count));
  for (std::size_t i = 0; i < these.count; ++i) {
    mover_.settle_home(home(these.items[i].frame), 1);
    frames_.store(these.items[i].frame, FramePlace::kUnpopulated);
    index_.set_locked(these.items[i].page, WindowIndex::kEmpty);
    index_.unlock(these.items[i].page);
  }
  pages_dropped_.fetch_add(these.count, std::memory_order_relaxed);
}

// --- what the runtime asks -------------------------------------------------------------------------------

bool HostMachine::resident(VirtRange range, Access access) const {
  if (range.start < window_.start || range.end > window_.end) return false;
  for (std::uint64_t page = page_of(page_floor(range.start)); page < page_of(page_ceil(range.end)); ++page) {
    for (;;) {
      const std::uint32_t slot = index_.settled(page);
      if (slot == WindowIndex::kEmpty) return false;
      const FrameState state = frames_.load(WindowIndex::frame_of(slot));
      if (index_.peek(page) != slot) continue;  // changed meanwhile
      if (!state.mapped() || state.page != page) continue;
      if (access == Access::kWrite && state.place != FramePlace::kWritable) return false;
      break;
    }
  }
  return true;
}

HostStats HostMachine::stats() const {
  HostStats s;
  s.pages_entered = pages_entered_.load(std::memory_order_relaxed);
  s.pages_left = pages_left_.load(std::memory_order_relaxed);
  s.pages_dropped = pages_dropped_.load(std::memory_order_relaxed);
  s.refused = refused_.load(std::memory_order_relaxed);
  s.stolen = stolen_.load(std::memory_order_relaxed);
  s.granted = granted_count_.load(std::memory_order_relaxed);
  s.mover = mover_.stats();
  s.twins = mover_.twins();
  for (std::uint32_t f = 0; f < frames_.limit().value(); ++f) {
    if (frames_.load(FrameNumber{f}).place != FramePlace::kUnpopulated) ++s.populated;
  }
  return s;
}

}  // namespace enchilada
