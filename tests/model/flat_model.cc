// The naive address space. Slow and obvious is the point.
#include "flat_model.h"

#include <algorithm>
#include <vector>

namespace enchilada::model {

void ModelFile::resize(std::uint64_t bytes) {
  pages.resize(to_pages(ByteCount{bytes}).value());
  const std::uint64_t end = std::min(bytes, length);  // behind the shorter of the two there are zeros
  for (std::size_t i = 0; i < kWords && (end & kPageMask) != 0; ++i) {
    if (word_offset(i) >= (end & kPageMask)) pages[end >> kPageShift][i] = 0;
  }
  length = bytes;
}

Words& Content::stored() {
  if (from.file == nullptr) return words;
  if (from.shared) return from.file->pages[from.page];
  words = seen();
  from = {};
  return words;
}

bool ModelMap::covered(VirtRange range) const {
  for (std::uint64_t page = first(range); page < last(range); ++page) {
    if (!pages_.contains(page)) return false;
  }
  return true;
}

bool ModelMap::empty(VirtRange range) const {
  const auto it = pages_.lower_bound(first(range));
  return it == pages_.end() || it->first >= last(range);
}

std::size_t ModelMap::wired_pages() const {
  return static_cast<std::size_t>(
      std::count_if(pages_.begin(), pages_.end(), [](const auto& p) { return p.second.wired_count() != 0; }));
}

// ---- verdicts
// ----------------------------------------------------------------------------------------------------

KernReturn ModelMap::check_range(VirtRange range) const {
  if (!page_aligned(range.start) || !page_aligned(range.end) || range.empty())
    return KernReturn::kInvalidArgument;
  if (range.start < bounds_.start || range.end > bounds_.end) return KernReturn::kInvalidAddress;
  return KernReturn::kSuccess;
}

std::optional<VirtAddr> ModelMap::lowest_fit(VirtAddr from, std::uint64_t pages,
                                             std::uint64_t alignment) const {
  const std::uint64_t lowest = std::max(from.value(), bounds_.start.value());
  for (std::uint64_t at = (lowest + alignment - 1) / alignment * alignment;
       at + pages * kPageSize <= bounds_.end.value(); at += alignment) {
    if (empty({VirtAddr{at}, VirtAddr{at + pages * kPageSize}})) return VirtAddr{at};
  }
  return std::nullopt;
}

KernReturn ModelMap::expect_map(const VmMap::MapRequest& request, VirtAddr* address) const {
  using Placement = VmMap::MapRequest::Placement;
  if (request.length.value() == 0 || !allows(request.max_prot, request.prot))
    return KernReturn::kInvalidArgument;
  if (request.length > bounds_.size()) return KernReturn::kNoSpace;
  const PageCount pages = to_pages(request.length);
  if (request.placement == Placement::kAnywhere) {
    const auto at = lowest_fit(request.hint, pages.value(), request.alignment);
    if (at.has_value()) *address = *at;
    return at.has_value() ? KernReturn::kSuccess : KernReturn::kNoSpace;
  }
  const VirtRange range{request.hint, request.hint + to_bytes(pages)};
  if (!page_aligned(request.hint)) return KernReturn::kInvalidArgument;
  if (check_range(range) != KernReturn::kSuccess) return KernReturn::kInvalidAddress;
  if (request.placement == Placement::kFixedExclusive && !empty(range)) return KernReturn::kNoSpace;
  *address = request.hint;
  return KernReturn::kSuccess;
}

KernReturn ModelMap::expect_protect(VirtRange range, Prot prot) const {
  if (const KernReturn bad = check_range(range); bad != KernReturn::kSuccess) return bad;
  if (!covered(range)) return KernReturn::kInvalidAddress;
  for (auto it = pages_.lower_bound(first(range)); it != pages_.end() && it->first < last(range); ++it) {
    const ModelPage& page = it->second;
    if (page.kind == EntryKind::kObject && !allows(page.max_prot, prot))
      return KernReturn::kProtectionFailure;
  }
  return KernReturn::kSuccess;
}

KernReturn ModelMap::expect_advise(VirtRange range, Advice advice) const {
  if (const KernReturn bad = check_range(range); bad != KernReturn::kSuccess) return bad;
  if (advice != Advice::kDiscard) return KernReturn::kSuccess;
  for (auto it = pages_.lower_bound(first(range)); it != pages_.end() && it->first < last(range); ++it) {
    if (it->second.wired_count() != 0) return KernReturn::kInvalidArgument;
  }
  return KernReturn::kSuccess;
}

KernReturn ModelMap::expect_wire(VirtRange range) const {
  if (const KernReturn bad = check_range(range); bad != KernReturn::kSuccess) return bad;
  if (!covered(range)) return KernReturn::kInvalidAddress;
  for (auto it = pages_.lower_bound(first(range)); it != pages_.end() && it->first < last(range); ++it) {
    const ModelPage& page = it->second;
    if (page.kind == EntryKind::kGuard) return KernReturn::kInvalidAddress;
    if (page.kind == EntryKind::kObject && page.prot == Prot::kNone) return KernReturn::kInvalidAddress;
  }
  return KernReturn::kSuccess;
}

KernReturn ModelMap::expect_unwire(VirtRange range) const {
  if (const KernReturn bad = check_range(range); bad != KernReturn::kSuccess) return bad;
  return covered(range) ? KernReturn::kSuccess : KernReturn::kInvalidAddress;
}

KernReturn ModelMap::expect_sync(VirtRange range, VmMap::SyncRequest request) const {
  if (const KernReturn bad = check_range(range); bad != KernReturn::kSuccess) return bad;
  if (!covered(range)) return KernReturn::kInvalidAddress;
  for (auto it = pages_.lower_bound(first(range)); it != pages_.end() && it->first < last(range); ++it) {
    if (request.invalidate && it->second.user_wired) return KernReturn::kInvalidArgument;
  }
  return KernReturn::kSuccess;
}

KernReturn ModelMap::expect_remap(VirtRange from, VirtRange to, bool keep_source) const {
  if (const KernReturn bad = check_range(from); bad != KernReturn::kSuccess) return bad;
  if (const KernReturn bad = check_range(to); bad != KernReturn::kSuccess) return bad;
  const bool in_place = from.start == to.start;
  if (to.size() < from.size() || (from.overlaps(to) && (!in_place || keep_source))) {
    return KernReturn::kInvalidArgument;
  }
  if (!covered(from)) return KernReturn::kInvalidAddress;
  for (auto it = pages_.lower_bound(first(from)); it != pages_.end() && it->first < last(from); ++it) {
    if (it->second.kind == EntryKind::kForeign) return KernReturn::kInvalidArgument;
  }
  if (in_place && !empty({from.end, to.end})) return KernReturn::kNoSpace;
  return KernReturn::kSuccess;
}

// ---- effects
// -----------------------------------------------------------------------------------------------------

void ModelMap::map(const VmMap::MapRequest& request, VirtAddr address, const Origin& origin) {
  const VirtRange range{address, address + to_bytes(to_pages(request.length))};
  remove(range);
  for (std::uint64_t page = first(range); page < last(range); ++page) {
    ModelPage fresh;
    fresh.kind = request.kind;
    const bool guard = request.kind == EntryKind::kGuard;
    fresh.prot = guard ? Prot::kNone : request.prot;
    fresh.max_prot = guard ? Prot::kNone : request.max_prot;
    const bool zero_of_nothing = request.inherit == Inherit::kZero && request.kind != EntryKind::kObject;
    fresh.inherit = zero_of_nothing ? Inherit::kCopy : request.inherit;
    if (origin.file != nullptr) {
      fresh.origin = origin;
      fresh.origin.page += page - first(range);
      if (origin.shared) fresh.inherit = Inherit::kShare;
      fresh.renew();
    }
    pages_.emplace(page, std::move(fresh));
  }
}

void ModelMap::remove(VirtRange range) {
  pages_.erase(pages_.lower_bound(first(range)), pages_.lower_bound(last(range)));
}

void ModelMap::protect(VirtRange range, Prot prot) {
  for_each(range, [&](ModelPage& page) {
    if (page.kind != EntryKind::kObject) return;
    page.prot = prot;
    page.stays_resident = false;
  });
}

void ModelMap::inherit(VirtRange range, Inherit inherit) {
  for_each(range, [&](ModelPage& page) {
    if (inherit != Inherit::kZero || page.kind == EntryKind::kObject) page.inherit = inherit;
  });
}

void ModelMap::advise(VirtRange range, Advice advice) {
  for_each(range, [&](ModelPage& page) {
    if (page.kind != EntryKind::kObject) return;
    switch (advice) {
      case Advice::kNormal:
      case Advice::kSequential:
      case Advice::kRandom:
        page.advice = advice;
        break;
      case Advice::kFree:
        if (page.origin.file == nullptr) page.content->may_be_zero = true;  // the others are kept
        break;
      case Advice::kDiscard:
        // Memory inherited by sharing keeps its contents, as Linux's shared memory does.
        if (page.inherit != Inherit::kShare && !page.origin.shared) page.renew();
        break;
      case Advice::kWillNeed:
      case Advice::kDontNeed:
        break;
    }
  });
}

void ModelMap::wire(VirtRange range, WireKind kind) {
  for_each(range, [&](ModelPage& page) {
    if (page.kind != EntryKind::kObject) return;
    // Known limit, FreeBSD's too: of memory that is shared but not writable here, the wired page is the one
    // below what is shared; when a sharer writes, its copy takes that page's place and is not wired.
    if (page.wired_count() == 0) page.stays_resident = page.writable() || page.content.use_count() == 1;
    if (kind == WireKind::kUser) {
      page.user_wired = true;
    } else {
      ++page.system_wired;
    }
  });
}

void ModelMap::unwire(VirtRange range, WireKind kind) {
  for_each(range, [&](ModelPage& page) {
    if (kind == WireKind::kUser) {
      page.user_wired = false;
    } else if (page.system_wired != 0) {
      --page.system_wired;
    }
    if (page.wired_count() == 0) page.stays_resident = false;
  });
}

void ModelMap::remap(VirtRange from, VirtRange to, bool keep_source) {
  ModelPage tail = pages_.at(last(from) - 1);  // attributes of what grows at the end
  tail.content = nullptr;
  tail.user_wired = false;
  tail.system_wired = 0;
  tail.stays_resident = false;
  std::vector<ModelPage> moved;
  if (from.start != to.start) {
    for (std::uint64_t page = first(from); page < last(from); ++page) moved.push_back(pages_.at(page));
    remove(to);
    remove(from);
    for (std::size_t i = 0; i < moved.size(); ++i) {
      if (keep_source) {
        ModelPage fresh = moved[i];
        fresh.renew();
        fresh.user_wired = false;
        fresh.system_wired = 0;
        fresh.stays_resident = false;
        pages_.emplace(first(from) + i, std::move(fresh));
      }
      moved[i].stays_resident = false;  // it faults once at its new place
      pages_.emplace(first(to) + i, std::move(moved[i]));
    }
  }
  for (std::uint64_t page = first(to) + (last(from) - first(from)); page < last(to); ++page) {
    ++tail.origin.page;
    tail.renew();
    pages_.emplace(page, tail);
  }
}

std::unique_ptr<ModelMap> ModelMap::fork() const {
  auto child = std::make_unique<ModelMap>(bounds_);
  for (const auto& [number, page] : pages_) {
    if (page.inherit == Inherit::kNone) continue;
    ModelPage copy = page;
    copy.user_wired = false;
    copy.system_wired = 0;
    copy.stays_resident = false;
    if (page.inherit == Inherit::kZero) {
      copy.origin = {};
      copy.renew();
    }
    if (page.inherit == Inherit::kCopy) {
      copy.content = std::make_shared<Content>(*page.content);
      // Of a shared mapping the child gets a copy as it is now; beyond the end there is nothing to copy.
      copy.origin.shared = copy.content->from.shared = false;
      if (page.origin.shared && !copy.content->out_of_bounds()) (void)copy.content->stored();
    }
    child->pages_.emplace(number, std::move(copy));
  }
  return child;
}

}  // namespace enchilada::model
