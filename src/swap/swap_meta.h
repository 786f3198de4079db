// SwapMeta: for each object, which of its pages have a copy in swap, where, and with which fingerprint.
//
// The seam between SwapPager and the forms that this bookkeeping has had (SwapMetaMode): a trie per object as
// in FreeBSD today, the global hash of 4.x that the article tells of, and 3.x's array for a whole object.
// SwapMetaStore says what a form must offer; this class holds the one that was chosen. A variant, as
// SwapAllocator is one: the number of forms is closed, and the default stays a direct call. PagerHandle::root
// is the form's own, null exactly while the object has no copy. Not thread-safe but for get() and visit():
// the pager's lock guards it. Never calls malloc.
#pragma once

#include <concepts>
#include <variant>

#include "base/arena.h"
#include "base/function_ref.h"
#include "swap/swap_array3x.h"
#include "swap/swap_copy.h"
#include "swap/swap_hash.h"
#include "swap/swap_trie.h"
#include "vm/vm_modes.h"
#include "vm/vm_pager.h"

namespace enchilada {

/// A form of swap metadata. Handles stay where they are while they have copies.
template <class M>
concept SwapMetaStore = requires(M meta, const M seen, PagerHandle& handle, const PagerHandle& looked_at,
                                 PageIndex index, SwapCopy copy, MetaPurpose purpose,
                                 FunctionRef<void(PageIndex, const SwapCopy&)> use,
                                 FunctionRef<bool(PageIndex, const SwapCopy&)> look) {
  { seen.get(looked_at, index) } -> std::same_as<SwapCopy>;
  // Sets a page's copy; *old gets what was there. False, nothing changed: no memory left (only kPut).
  { meta.set(handle, index, copy, purpose, &copy) } -> std::same_as<bool>;
  // Removes the copies of [first, last] (inclusive) and calls use() for each, in order. use() may set copies
  // of other objects.
  { meta.remove_range(handle, index, index, use) } -> std::same_as<void>;
  // Calls look() for each copy in [first, last], in order, until it answers false.
  { seen.visit(looked_at, index, index, look) } -> std::same_as<void>;
  // Units of metadata in use, and how many there are.
  { seen.entries() } -> std::same_as<std::uint64_t>;
  { seen.max_entries() } -> std::same_as<std::uint64_t>;
  { seen.stats() } -> std::same_as<const SwapMetaStats&>;
  // The invariants of one object's metadata, and that it has so many pages.
  { seen.verify(looked_at, std::uint64_t{}) } -> std::same_as<bool>;
};
static_assert(SwapMetaStore<SwapTrie> && SwapMetaStore<SwapHash> && SwapMetaStore<SwapArray3x>);

class SwapMeta {
 public:
  /// Takes `bytes` of address space from the arena; the memory is touched only as it is used.
  SwapMeta(SwapMetaMode mode, Arena& arena, std::size_t bytes) {
    switch (mode) {
      case SwapMetaMode::kTrie:
        store_.emplace<SwapTrie>(arena, bytes);
        break;
      case SwapMetaMode::kHash:
        store_.emplace<SwapHash>(arena, bytes);
        break;
      case SwapMetaMode::kArray3x:
        store_.emplace<SwapArray3x>(arena, bytes);
        break;
    }
  }

  [[nodiscard]] SwapCopy get(const PagerHandle& handle, PageIndex index) const {
    return look([&](const auto& m) { return m.get(handle, index); });
  }
  [[nodiscard]] bool set(PagerHandle& handle, PageIndex index, const SwapCopy& copy, MetaPurpose purpose,
                         SwapCopy* old) {
    return pass([&](auto& m) { return m.set(handle, index, copy, purpose, old); });
  }
  /// Removes a page's copy and returns it.
  SwapCopy remove(PagerHandle& handle, PageIndex index) {
    SwapCopy removed;
    remove_range(handle, index, index, [&](PageIndex, const SwapCopy& copy) { removed = copy; });
    return removed;
  }
  void remove_range(PagerHandle& handle, PageIndex first, PageIndex last,
                    FunctionRef<void(PageIndex, const SwapCopy&)> use) {
    pass([&](auto& m) { m.remove_range(handle, first, last, use); });
  }
  void visit(const PagerHandle& handle, PageIndex first, PageIndex last,
             FunctionRef<bool(PageIndex, const SwapCopy&)> use) const {
    look([&](const auto& m) { m.visit(handle, first, last, use); });
  }
  [[nodiscard]] std::uint64_t entries() const {
    return look([](const auto& m) { return m.entries(); });
  }
  [[nodiscard]] std::uint64_t max_entries() const {
    return look([](const auto& m) { return m.max_entries(); });
  }
  [[nodiscard]] const SwapMetaStats& stats() const {
    return look([](const auto& m) -> const SwapMetaStats& { return m.stats(); });
  }
  [[nodiscard]] bool verify(const PagerHandle& handle, std::uint64_t pages) const {
    return look([&](const auto& m) { return m.verify(handle, pages); });
  }

 private:
  struct None {};
  template <class Use>
  auto pass(Use use) -> decltype(use(std::declval<SwapTrie&>())) {
    if (auto* trie = std::get_if<SwapTrie>(&store_)) return use(*trie);
    if (auto* hash = std::get_if<SwapHash>(&store_)) return use(*hash);
    return use(*std::get_if<SwapArray3x>(&store_));
  }
  template <class Use>
  auto look(Use use) const -> decltype(use(std::declval<const SwapTrie&>())) {
    if (auto* trie = std::get_if<SwapTrie>(&store_)) return use(*trie);
    if (auto* hash = std::get_if<SwapHash>(&store_)) return use(*hash);
    return use(*std::get_if<SwapArray3x>(&store_));
  }

  std::variant<None, SwapTrie, SwapHash, SwapArray3x> store_;
};

}  // namespace enchilada
