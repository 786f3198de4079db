// One fault in progress. Private to vm_fault*.cc.
//
// A fault is a loop over short steps. A step that answers kNext leaves its locks to the next one; any other
// answer means that no lock, no busy page and no paging-in-progress is held any more (kPageIn: pages of one
// object are busy and its pip is raised; the map and the objects are unlocked). So a thread that holds a page
// busy never waits for a map lock, and whoever holds a map lock may wait for a busy page.
//
// Placeholder rule (§1.2): the page that will be the answer goes into the top object busy and invalid while
// the whole chain was seen to be without it; then the objects are unlocked for zeroing or copying. Who comes
// meanwhile finds the placeholder, sleeps on it and looks again. After a page-in everything is looked up
// anew: the page is resident now.
#pragma once

#include <array>
#include <span>

#include "vm/vm_fault.h"
#include "vm/vm_frame_order.h"
#include "vm/vm_object.h"
#include "vm/vm_page.h"
#include "vm/vm_phys.h"
#include "vm/vm_prefault.h"

namespace enchilada {

class FaultState {
 public:
  /// kWire: the page is wired too. kAhead: nobody has asked for it yet.
  enum class Purpose : std::uint8_t { kFault, kWire, kAhead };

  FaultState(VmMap& map, VirtAddr address, Access access, Purpose purpose)
      : map_(map),
        system_(map.system()),
        va_(page_floor(address)),
        access_(access),
        wire_(purpose == Purpose::kWire),
        ahead_(purpose == Purpose::kAhead) {}

  /// Runs the fault to its end.
  FaultResult run();

 private:
  static constexpr std::size_t kMax = 64;
  enum class Step : std::uint8_t {
    kNext,        // go on with the next step, locks stay
    kDone,        // resolved
    kRestart,     // something changed: look everything up again
    kBusy,        // wait_on_ was busy: sleep, then look everything up again
    kNeedFrames,  // no free frame: reclaim, then look everything up again
    kPageIn,      // io_ says what to read
    kFailed,      // failure_ says why
  };
  /// Pages around the wanted one, as indexes of the top object; bit i of `open` = absent in every object
  /// looked at.
  struct Window {
    PageIndex low;
    unsigned count = 0;
    std::uint64_t open = 0;
  };
  /// A cluster of consecutive pages, all busy; pos is the wanted one.
  struct Batch {
    PageIndex low;  // as index of the top object
    std::size_t count = 0;
    std::size_t pos = 0;
    std::array<FrameNumber, kMax> frames;
    [[nodiscard]] std::span<const FrameNumber> all() const { return {frames.data(), count}; }
    [[nodiscard]] FrameNumber wanted() const { return frames[pos]; }
  };
  class Neighbours;
  struct PageIn {
    VmObject* object = nullptr;
    PageIndex first;
    std::size_t count = 0;
    std::size_t pos = 0;
    bool sequential = false;
    bool widest = false;  // with the largest window
    std::array<FrameNumber, kMax> frames;
    [[nodiscard]] std::span<const FrameNumber> all() const { return {frames.data(), count}; }
  };

  // The steps, in order.
  Step look_up();
  Step find_in_top();
  Step walk_chain();

  // What walk_chain() ends in. `object` is locked, and the top object too when it is another.
  Step found_below(VmObject& object, PageIndex index, FrameNumber frame);
  Step map_from_below(VmObject& object, PageIndex index, Page& page);
  Step copy_up(VmObject& object, Page& page);
  SourceFate fate_of(VmObject& object, PageIndex index, bool* dead);
  void let_go_of_source(Page& source, SourceFate fate);
  Step move_up(VmObject& object, Page& page);
  Step zero_fill(VmObject& last);
  Step fill_and_map(Batch& batch);
  void zero_frames(const Batch& batch);
  [[nodiscard]] bool reads_as_zeros(FrameNumber frame) const;
  void count_made(Counter& made, Page& page);
  Step copy_and_map(Batch& batch, Page& source, bool others_see_top, SourceFate fate);
  Step start_page_in(VmObject& object, PageIndex index);

  /// Frames for the pages of an object from `first` on, of which number `wanted` is the one at va_.
  [[nodiscard]] FrameWish frame_wish(VmObject& object, PageIndex first, std::uint64_t wanted) const {
    return {&object, first, va_ - to_bytes(PageCount{wanted})};
  }

  // Page-in.
  bool read_pages();
  void finish_page_in(bool good);
  void discard_from_io(std::size_t from, std::size_t to);
  Step take_frames_for_io(VmObject& object, PageIndex index, std::uint64_t before, std::uint64_t n);
  static SequenceTable::Sequence* sequence_before(VmObject& object, PageIndex index);
  PagerRun stored_around(VmObject& object, PageIndex index, PageCount before, PageCount after);
  void read_limits(VmObject& object, PageIndex index, std::uint64_t* before, std::uint64_t* after);
  [[nodiscard]] PageSpan just_read() const;

  // Zero-fill.
  unsigned fill_width(VmObject& top) const;
  void fill_run(Batch& batch) const;
  bool take_frames(Batch& batch);
  bool insert_batch(VmObject& top, Batch& batch);

  // Windows, neighbours, mapping.
  void open_window(unsigned width);
  void note_present(VmObject& object, std::uint64_t shift);
  [[nodiscard]] bool is_open(PageIndex index) const;
  void choose_refault_group(const VmObject& object);
  void add_neighbours(VmObject& object, std::uint64_t shift, Batch& batch);
  bool take_neighbour(VmObject& top, PageIndex index, const Page& wanted, FrameNumber* frame);
  [[nodiscard]] bool worth_mapping(const Page& page, const Page& wanted, PageIndex index) const;
  Step map_resident(Batch& batch, Prot prot);
  void touch(Page& page);
  void settle_neighbours(const Batch& batch);
  void enter(const Batch& batch, Prot prot);
  void wire_page(Page& page);
  void unbusy_all(const Batch& batch);
  void note_write(Page& page);

  // Ends.
  void unlock_objects(VmObject& object);
  Step leave(Step step);
  Step leave_objects(VmObject& object, Step step);
  Step busy(VmObject& object, Page& page);
  Step fail(FaultResult why) {
    failure_ = why;
    return Step::kFailed;
  }
  bool wait_for_frames();
  void after_fault();
  [[nodiscard]] std::uint64_t spare_frames(bool sequential) const;
  void wish(std::uint64_t frames) { wish_ = frames > wish_ ? frames : wish_; }
  /// Wiring is for a system call in flight, which must end for others to go on.
  [[nodiscard]] FrameClass frame_class() const { return wire_ ? FrameClass::kSystem : FrameClass::kNormal; }
  [[nodiscard]] VmObject& top() const { return *look_.object; }
  [[nodiscard]] PageIndex entry_end() const {
    return look_.entry_first_index + to_pages(look_.entry_range.size());
  }

  VmMap& map_;
  VmSystem& system_;
  const VirtAddr va_;
  const Access access_;
  const bool wire_;
  const bool ahead_;

  MapLookup look_;
  Window window_;
  unsigned fill_width_ = 1;
  std::uint64_t refault_group_ = 4;  // withdrawn pages are brought back in aligned groups of so many
  Page* wait_on_ = nullptr;
  Page* kept_ = nullptr;  // the wanted page, still busy after the fault is done (unbusy_all())
  FaultResult failure_ = FaultResult::kNotMapped;
  PageIn io_;
  bool did_io_ = false;             // this fault has read its page
  bool map_what_was_read_ = false;  // sequential: enter the whole of io_, not just the usual neighbours
  bool allocated_ = false;          // this fault took frames: see to it that the next one finds some
  unsigned reads_ = 0;
  std::uint64_t wish_ = 0;  // frames that the next fault of a sequence would like to find free
};

}  // namespace enchilada
