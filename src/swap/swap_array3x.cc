// SwapArray3x: arrays that grow, and what is put aside when they cannot.
#include "swap/swap_array3x.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>

#include "base/check.h"

namespace enchilada {

struct alignas(64) SwapArray3x::Array {
  std::uint64_t capacity;  // pages 0 .. capacity - 1
  std::uint64_t used;      // copies in it
  BlockRun memory;         // units of the pool
  void* aside;             // the table's root for this object

  // Behind it: a block for each page, then a fingerprint for each.
  [[nodiscard]] SwapBlock* blocks() const {
    return reinterpret_cast<SwapBlock*>(const_cast<Array*>(this) + 1);
  }
  [[nodiscard]] Fingerprint* prints() const { return reinterpret_cast<Fingerprint*>(blocks() + capacity); }
  [[nodiscard]] SwapCopy at(std::uint64_t i) const { return {blocks()[i], prints()[i]}; }
  void set(std::uint64_t i, const SwapCopy& copy) const {
    blocks()[i] = copy.block;
    prints()[i] = copy.print;
  }
};

namespace {

constexpr std::uint64_t kLeastPages = 16;
/// Of the memory: what is put aside for moves.
constexpr std::size_t kAsideShare = 4;

}  // namespace

SwapArray3x::SwapArray3x(Arena& arena, std::size_t bytes)
    : arena_(&arena), aside_(arena, bytes / kAsideShare / 64 * 64) {
  const std::size_t left = bytes - bytes / kAsideShare;
  const std::uint64_t units = left / (kUnit + 1);  // a list needs less than a byte for a unit
  const std::size_t list_bytes = Blist::required_bytes(PageCount{units});
  if (units == 0 || units * kUnit + list_bytes > left) return;
  auto* list = static_cast<std::byte*>(arena.allocate(list_bytes));
  pool_memory_ = static_cast<std::byte*>(arena.reserve(units * kUnit));
  if (list == nullptr || pool_memory_ == nullptr) return;
  pool_ = Blist::create({list, list_bytes}, PageCount{units}, PageCount{0});
  max_entries_ = units;
}

SwapArray3x::Array* SwapArray3x::array_of(const PagerHandle& handle) {
  return BasicSwapHash<0>::is_root(handle.root) ? nullptr : static_cast<Array*>(handle.root);
}

void*& SwapArray3x::aside_root(PagerHandle& handle) {
  Array* const array = array_of(handle);
  return array == nullptr ? handle.root : array->aside;
}

const void* SwapArray3x::aside_root(const PagerHandle& handle) {
  const Array* const array = array_of(handle);
  return array == nullptr ? handle.root : array->aside;
}

std::uint64_t SwapArray3x::units_for(std::uint64_t pages) {
  const std::uint64_t bytes = sizeof(Array) + pages * (sizeof(SwapBlock) + sizeof(Fingerprint));
  return (bytes + kUnit - 1) / kUnit;
}

/// An array of at least so many pages; what there was is carried over. Null: no such piece in the pool.
SwapArray3x::Array* SwapArray3x::make_array(PagerHandle& handle, std::uint64_t pages) {
  if (pages > max_entries_ * kUnit) return nullptr;
  const std::uint64_t capacity = std::bit_ceil(std::max(pages, kLeastPages));
  const PageCount units{units_for(capacity)};
  if (units.value() > max_entries_) return nullptr;
  const BlockRun run = pool_.allocate(units, units);
  if (run.empty()) return nullptr;
  void* const aside = aside_root(handle);
  auto* const made = reinterpret_cast<Array*>(pool_memory_ + run.first.value() * kUnit);
  *made = {capacity, 0, run, aside};
  std::fill_n(made->blocks(), capacity, kNoBlock);
  arena_->note_touched(units.value() * kUnit);
  if (const Array* old = array_of(handle); old != nullptr) {
    for (std::uint64_t i = 0; i < old->capacity; ++i) made->set(i, old->at(i));
    made->used = old->used;
    count(stats_.copied, old->used);
    CHECK(pool_.free(old->memory));
  }
  handle.root = made;
  count(stats_.grown);
  return made;
}

void SwapArray3x::free_array(PagerHandle& handle) {
  const Array* const array = array_of(handle);
  const BlockRun memory = array->memory;
  handle.root = array->aside;
  CHECK(pool_.free(memory));
}

SwapCopy SwapArray3x::get(const PagerHandle& handle, PageIndex index) const {
  const Array* const array = array_of(handle);
  if (array != nullptr && index.value() < array->capacity && array->blocks()[index.value()] != kNoBlock) {
    return array->at(index.value());
  }
  return aside_.get(&handle, aside_root(handle), index);
}

bool SwapArray3x::set(PagerHandle& handle, PageIndex index, const SwapCopy& copy, MetaPurpose purpose,
                      SwapCopy* old) {
  *old = get(handle, index);
  if (!old->exists() && purpose == MetaPurpose::kPut && pages_ >= max_pages()) {
    count(stats_.refused);
    return false;
  }
  Array* array = array_of(handle);
  const bool in_array = array != nullptr && index.value() < array->capacity &&
                        (!old->exists() || array->blocks()[index.value()] != kNoBlock);
  if (!in_array && !old->exists()) array = make_array(handle, index.value() + 1);
  if (in_array || (!old->exists() && array != nullptr)) {
    array->set(index.value(), copy);
    if (!old->exists()) ++array->used, ++pages_;
    return true;
  }
  if (!old->exists() && purpose == MetaPurpose::kPut) {
    count(stats_.refused);
    return false;
  }
  SwapCopy before;
  const bool set = aside_.set(&handle, aside_root(handle), index, copy, MetaPurpose::kMove, &before);
  CHECK(set, pages_, max_pages());
  if (!old->exists()) {
    count(stats_.dips);
    ++pages_;
  }
  return true;
}

SwapCopy SwapArray3x::remove_one(PagerHandle& handle, PageIndex index) {
  --pages_;
  Array* const array = array_of(handle);
  if (array == nullptr || index.value() >= array->capacity || array->blocks()[index.value()] == kNoBlock) {
    return aside_.remove(&handle, aside_root(handle), index);
  }
  const SwapCopy gone = array->at(index.value());
  array->blocks()[index.value()] = kNoBlock;
  if (--array->used == 0) free_array(handle);
  return gone;
}

/// The first copy in [first, last], wherever it is.
bool SwapArray3x::next(const PagerHandle& handle, PageIndex first, PageIndex last, PageIndex* index,
                       SwapCopy* copy) const {
  bool found = aside_.next(&handle, aside_root(handle), first, last, index, copy);
  const Array* const array = array_of(handle);
  if (array == nullptr) return found;
  const std::uint64_t end = std::min(array->capacity - 1, found ? index->value() : last.value());
  for (std::uint64_t i = first.value(); i <= end; ++i) {
    if (array->blocks()[i] == kNoBlock) continue;
    *index = PageIndex{i};
    *copy = array->at(i);
    return true;
  }
  return found;
}

void SwapArray3x::remove_range(PagerHandle& handle, PageIndex first, PageIndex last,
                               FunctionRef<void(PageIndex, const SwapCopy&)> use) {
  PageIndex at;
  SwapCopy copy;
  while (first <= last && handle.root != nullptr && next(handle, first, last, &at, &copy)) {
    (void)remove_one(handle, at);
    use(at, copy);
    if (at == last) return;
    first = at + PageCount{1};
  }
}

void SwapArray3x::visit(const PagerHandle& handle, PageIndex first, PageIndex last,
                        FunctionRef<bool(PageIndex, const SwapCopy&)> use) const {
  PageIndex at;
  SwapCopy copy;
  while (first <= last && next(handle, first, last, &at, &copy)) {
    if (!use(at, copy) || at == last) return;
    first = at + PageCount{1};
  }
}

bool SwapArray3x::verify(const PagerHandle& handle, std::uint64_t pages) const {
  std::uint64_t seen = 0;
  bool ordered = true;
  PageIndex before;
  visit(handle, PageIndex{0}, PageIndex{~std::uint64_t{0}}, [&](PageIndex at, const SwapCopy& copy) {
    ordered = ordered && (seen == 0 || before < at) && copy.exists();
    before = at;
    ++seen;
    return true;
  });
  if (!ordered || seen != pages || pages_ > max_pages()) return false;
  const Array* const array = array_of(handle);
  if (array == nullptr) return true;
  const auto used = std::count_if(array->blocks(), array->blocks() + array->capacity,
                                  [](SwapBlock b) { return b != kNoBlock; });
  if (array->used == 0 || static_cast<std::uint64_t>(used) != array->used) return false;
  for (std::uint64_t i = 0; i < array->capacity; ++i) {
    if (array->blocks()[i] != kNoBlock && aside_.get(&handle, array->aside, PageIndex{i}).exists())
      return false;
  }
  return true;
}

}  // namespace enchilada
