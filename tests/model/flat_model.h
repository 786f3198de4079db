// The oracle: what the engine must do, written as naively as possible.
//
// An address space is a map from page number to a page with its attributes and its own contents; fork copies
// every page. Pages that are inherited by sharing point to one Content. A file is an array of pages; a page
// that maps it shows the file's, a private one until it is stored to. Nothing here knows of objects, frames,
// swap or time. Invariant: an operation's expected verdict is computed before anything changes; apply
// functions are called only for operations that the engine says have succeeded.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "vm/vm_map.h"

namespace enchilada::model {

/// Words of a page that tests use; word i lies at kWordOffset(i). All other bytes are zero for ever.
inline constexpr std::size_t kWords = 8;
constexpr std::uint64_t word_offset(std::size_t i) {
  return i * 512 + i * 8;
}

using Words = std::array<std::uint64_t, kWords>;

struct ModelFile {
  std::uint64_t length = 0;  // bytes, a multiple of 8; behind it everything is zero
  std::vector<Words> pages;
  void resize(std::uint64_t bytes);
};

/// Where a mapping of a file shows it.
struct Origin {
  std::shared_ptr<ModelFile> file;  // null: anonymous memory
  std::uint64_t page = 0;
  bool shared = false;
};

/// What a page holds.
struct Content {
  Words words{};
  bool may_be_zero = false;  // after MADV_FREE: the old words, or all zeros, until something is stored
  Origin from;               // with a file: its page, instead of the words

  [[nodiscard]] bool out_of_bounds() const {
    return from.file != nullptr && from.page >= from.file->pages.size();
  }
  [[nodiscard]] const Words& seen() const {
    return from.file != nullptr ? from.file->pages[from.page] : words;
  }
  /// For a store: the file's page, or this page's own words, which are the file's before the first store.
  [[nodiscard]] Words& stored();
};

/// One page of an address space.
struct ModelPage {
  std::shared_ptr<Content> content = std::make_shared<Content>();
  EntryKind kind = EntryKind::kObject;
  Prot prot = Prot::kReadWrite;
  Prot max_prot = Prot::kAll;
  Inherit inherit = Inherit::kCopy;
  Advice advice = Advice::kNormal;
  bool user_wired = false;
  unsigned system_wired = 0;
  bool stays_resident = false;  // wired, and so it stays
  Origin origin;                // what it shows when its contents are given up

  /// Gives it contents that nobody has stored to.
  void renew() {
    content = std::make_shared<Content>();
    content->from = origin;
  }

  [[nodiscard]] unsigned wired_count() const { return system_wired + (user_wired ? 1u : 0u); }
  [[nodiscard]] bool readable() const { return kind == EntryKind::kObject && prot != Prot::kNone; }
  [[nodiscard]] bool writable() const { return kind == EntryKind::kObject && allows(prot, Prot::kWrite); }
};

class ModelMap {
 public:
  explicit ModelMap(VirtRange bounds) : bounds_(bounds) {}

  using Pages = std::map<std::uint64_t, ModelPage>;  // by page number
  [[nodiscard]] VirtRange bounds() const { return bounds_; }
  [[nodiscard]] Pages& pages() { return pages_; }
  [[nodiscard]] const Pages& pages() const { return pages_; }
  [[nodiscard]] ModelPage* find(VirtAddr va) {
    const auto it = pages_.find(va.value() >> kPageShift);
    return it == pages_.end() ? nullptr : &it->second;
  }
  [[nodiscard]] bool covered(VirtRange range) const;
  [[nodiscard]] bool empty(VirtRange range) const;
  [[nodiscard]] std::size_t wired_pages() const;

  // Verdicts, from arguments and state alone (no shortage of anything).
  [[nodiscard]] KernReturn check_range(VirtRange range) const;
  [[nodiscard]] KernReturn expect_map(const VmMap::MapRequest& request, VirtAddr* address) const;
  [[nodiscard]] KernReturn expect_protect(VirtRange range, Prot prot) const;
  [[nodiscard]] KernReturn expect_advise(VirtRange range, Advice advice) const;
  [[nodiscard]] KernReturn expect_wire(VirtRange range) const;
  [[nodiscard]] KernReturn expect_unwire(VirtRange range) const;
  [[nodiscard]] KernReturn expect_sync(VirtRange range, VmMap::SyncRequest request) const;
  [[nodiscard]] KernReturn expect_remap(VirtRange from, VirtRange to, bool keep_source) const;

  // Effects.
  void map(const VmMap::MapRequest& request, VirtAddr address, const Origin& origin = {});
  void remove(VirtRange range);
  void protect(VirtRange range, Prot prot);
  void inherit(VirtRange range, Inherit inherit);
  void advise(VirtRange range, Advice advice);
  void wire(VirtRange range, WireKind kind);
  void unwire(VirtRange range, WireKind kind);
  void remap(VirtRange from, VirtRange to, bool keep_source);
  [[nodiscard]] std::unique_ptr<ModelMap> fork() const;

  /// Calls use(page) for each page of the range that exists.
  template <class Use>
  void for_each(VirtRange range, Use use) {
    for (auto it = pages_.lower_bound(first(range)); it != pages_.end() && it->first < last(range); ++it) {
      use(it->second);
    }
  }

 private:
  static std::uint64_t first(VirtRange r) { return r.start.value() >> kPageShift; }
  static std::uint64_t last(VirtRange r) { return r.end.value() >> kPageShift; }
  [[nodiscard]] std::optional<VirtAddr> lowest_fit(VirtAddr from, std::uint64_t pages,
                                                   std::uint64_t alignment) const;

  VirtRange bounds_;
  Pages pages_;
};

}  // namespace enchilada::model
