// Pager: backing store of objects, as the engine sees it (FreeBSD's pagerops).
//
// Each VmObject owns one PagerHandle; the pager keeps in it what it knows (for swap: a trie page index ->
// block, made when first needed). Metadata calls never sleep for I/O; get/put may. The engine holds no lock
// across get_pages and put: the frames are exclusively busy and the object cannot go away (paging in
// progress). A pager guards its metadata with its own leaf lock (rank kSwapSpace), so metadata calls are
// legal under object locks.
#pragma once

#include <span>

#include "base/function_ref.h"
#include "vm/vm_types.h"

namespace enchilada {

/// What a pager knows about one object. Zero = nothing. Only the pager looks at root.
struct PagerHandle {
  void* root = nullptr;
  /// Pages that the backing store holds; readable by the engine as a hint without a lock. For a file: the
  /// pages up to its end, exactly; changes with the object locked (VmObjectZone::resize_file()).
  std::uint64_t pages = 0;
};

/// A run of page indexes around a wanted one that one I/O can fetch.
struct PagerRun {
  bool present = false;  // the wanted page is in the backing store
  PageCount before;      // contiguous pages before and after it that the same read could bring in
  PageCount after;
};

/// One page to be written (Pager::put).
struct PutRequest {
  PagerHandle* handle = nullptr;
  PageIndex index;
  FrameNumber frame = kNoFrame;
  PagerReturn verdict = PagerReturn::kFail;
};

class Pager {
 public:
  virtual ~Pager() = default;

  /// Is `index` in the backing store, and how far does the contiguous run around it reach (clipped to the
  /// limits)?
  [[nodiscard]] virtual PagerRun has_page(const PagerHandle& handle, PageIndex index, PageCount max_before,
                                          PageCount max_after) = 0;

  /// Fills frames[i] with page first+i. All or nothing: on kError/kFail no frame's content may be relied on.
  /// Checks integrity where it can: damaged data is kError. The copy in the store is kept.
  virtual PagerReturn get_pages(PagerHandle& handle, PageIndex first,
                                std::span<const FrameNumber> frames) = 0;

  /// The same; may call work() once while the device reads, with no lock of the pager held. work() may use
  /// get_pages() and put(), but of all threads that are inside work() only one at a time: it may need a
  /// second buffer, and those who wait for one while they hold another must not wait for each other.
  virtual PagerReturn get_pages_while(PagerHandle& handle, PageIndex first,
                                      std::span<const FrameNumber> frames, FunctionRef<void()> /*work*/) {
    return get_pages(handle, first, frames);
  }

  /// Writes pages, of any objects and places, in as few writes as it can; each request's verdict says what
  /// became of it (kOk, kClean, kFail, kError). A failed page keeps no store copy newer than the frame.
  /// Neighbours of one object that lie together in `requests` are stored together, so that one read can fetch
  /// them.
  virtual void put(std::span<PutRequest> requests) = 0;

  /// Would a put() have to wait for the device now? It may write behind: then frames are the caller's again
  /// before the device has the bytes.
  [[nodiscard]] virtual bool put_would_wait() { return false; }

  /// put() for consecutive pages of one object: frames[i] is page first+i.
  void put_pages(PagerHandle& handle, PageIndex first, std::span<const FrameNumber> frames,
                 std::span<PagerReturn> verdicts);

  /// These pages, busy and equal to their copies in the store, are about to leave memory. Verdicts mean
  /// nothing.
  virtual void evicting(std::span<PutRequest> /*requests*/) {}

  /// The file behind the handle gets this length; what is added reads as zeros. Nothing beyond the shorter of
  /// the two lengths is being read or written. kFail: it cannot, nothing has changed.
  virtual PagerReturn resize(PagerHandle& /*handle*/, ByteCount /*length*/) { return PagerReturn::kBad; }

  /// Length of the file behind the handle, in bytes.
  [[nodiscard]] virtual ByteCount length(const PagerHandle& handle) const {
    return to_bytes(PageCount{handle.pages});
  }

  /// Drops the store's copies of [first, first+count). A file keeps its contents.
  virtual void forget(PagerHandle& handle, PageIndex first, PageCount count) = 0;

  /// Drops everything; the handle is as new.
  virtual void forget_all(PagerHandle& handle) = 0;

  /// Collapse: moves copies of source pages [offset, offset+size) to dest pages [0, size) where dest has
  /// none; the rest of source is dropped.
  virtual void transfer(PagerHandle& source, PageIndex offset, PageCount size, PagerHandle& dest) = 0;

  /// Split: moves copies of source pages [first, first+count) to dest pages [0, count). dest has none there.
  virtual void split(PagerHandle& source, PageIndex first, PageCount count, PagerHandle& dest) = 0;

  /// Smallest page index >= from that is in the store; false if none.
  [[nodiscard]] virtual bool find_least(const PagerHandle& handle, PageIndex from, PageIndex* found) = 0;

  /// The store has little or no space left: pages whose copy is only kept in reserve should give it up.
  [[nodiscard]] virtual bool nearly_full() const { return false; }
};

}  // namespace enchilada
