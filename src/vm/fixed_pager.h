// FixedPager: the pager of objects whose frames stay where they are: it has nothing and takes nothing.
// Invariant: stateless; put() and get_pages() are never called, for such pages are wired and all resident.
#pragma once

#include "vm/vm_pager.h"

namespace enchilada {

class FixedPager final : public Pager {
 public:
  [[nodiscard]] PagerRun has_page(const PagerHandle&, PageIndex, PageCount, PageCount) override { return {}; }
  PagerReturn get_pages(PagerHandle&, PageIndex, std::span<const FrameNumber>) override {
    return PagerReturn::kBad;
  }
  void put(std::span<PutRequest> requests) override {
    for (PutRequest& request : requests) request.verdict = PagerReturn::kBad;
  }
  void forget(PagerHandle&, PageIndex, PageCount) override {}
  void forget_all(PagerHandle&) override {}
  void transfer(PagerHandle&, PageIndex, PageCount, PagerHandle&) override {}
  void split(PagerHandle&, PageIndex, PageCount, PagerHandle&) override {}
  [[nodiscard]] bool find_least(const PagerHandle&, PageIndex, PageIndex*) override { return false; }
};

}  // namespace enchilada
