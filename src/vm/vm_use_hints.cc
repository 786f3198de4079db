// Hints about use to come.
#include "vm/vm_use_hints.h"

#include <algorithm>

#include "vm/vm_pageout_ops.h"

namespace enchilada {
namespace {

using Aside = PageoutOps::Aside;

class KeepBehind final : public StreamRule {};

class DropBehind final : public StreamRule {
 public:
  explicit DropBehind(PageoutOps& ops) : ops_(ops) {}
  void passed(VmObject& object, PageIndex window) override {
    const std::uint64_t n = std::min(window.value(), kBehind);
    const std::uint64_t moved =
        ops_.set_aside(object, window - PageCount{n}, PageCount{n}, [](const Page& page) {
          return page.queue() == PageQueue::kActive ? Aside::kInactiveTail : Aside::kStay;
        });
    count(ops_.system().counters().pdbehind, moved);
  }

 private:
  static constexpr std::uint64_t kBehind = (std::uint64_t{1} << 20) / kPageSize;
  PageoutOps& ops_;
};

class PageOutUnneeded final : public UnneededRule {
 public:
  explicit PageOutUnneeded(PageoutOps& ops) : ops_(ops) {}
  void unneeded(VmObject& object, PageIndex first, PageCount count) override {
    PageoutRun run;
    run.goal = count.value();
    ops_.page_out(object, first, count, run);
  }

 private:
  PageoutOps& ops_;
};

/// A program that says so again and again of the same pages may be wrong (FreeBSD 4, vm_page_dontneed).
class WeightedUnneeded final : public UnneededRule {
 public:
  explicit WeightedUnneeded(PageoutOps& ops) : ops_(ops) {}
  void unneeded(VmObject& object, PageIndex first, PageCount count) override {
    (void)ops_.set_aside(object, first, count, [this](const Page&) {
      const unsigned turn = turn_++ % 32;
      if (turn == 0) return Aside::kStay;
      return turn <= 3 ? Aside::kInactiveTail : Aside::kInactiveFirst;
    });
  }

 private:
  PageoutOps& ops_;
  unsigned turn_ = 0;  // run lock
};

class HeadUnneeded final : public UnneededRule {
 public:
  explicit HeadUnneeded(PageoutOps& ops) : ops_(ops) {}
  void unneeded(VmObject& object, PageIndex first, PageCount count) override {
    (void)ops_.set_aside(object, first, count, [](const Page& page) {
      return page.is_dirty() ? Aside::kLaundry : Aside::kInactiveFirst;
    });
  }

 private:
  PageoutOps& ops_;
};

}  // namespace

std::unique_ptr<StreamRule> make_stream_rule(DropBehindMode mode, PageoutOps& ops) {
  switch (mode) {
    case DropBehindMode::kOff:
      return std::make_unique<KeepBehind>();
    case DropBehindMode::kOn:
      return std::make_unique<DropBehind>(ops);
  }
  return nullptr;
}

std::unique_ptr<UnneededRule> make_unneeded_rule(DontNeedMode mode, PageoutOps& ops) {
  switch (mode) {
    case DontNeedMode::kPageOut:
      return std::make_unique<PageOutUnneeded>(ops);
    case DontNeedMode::kWeighted:
      return std::make_unique<WeightedUnneeded>(ops);
    case DontNeedMode::kHead:
      return std::make_unique<HeadUnneeded>(ops);
  }
  return nullptr;
}

}  // namespace enchilada
