// The read-ahead policies.
#include "vm/vm_readahead.h"

#include <algorithm>

#include "vm/vm_object.h"
#include "vm/vm_system.h"

namespace enchilada {
namespace {

class NoReadAhead final : public ReadAheadPolicy {
 public:
  ReadWindow choose(VmObject&, PageIndex, Advice, const SequenceTable::Sequence*) const override {
    return {};
  }
};

/// FreeBSD 4: seven pages back and eight on, whatever came before; nothing but the advice can stop it.
class FixedReadAhead final : public ReadAheadPolicy {
 public:
  ReadWindow choose(VmObject&, PageIndex index, Advice advice,
                    const SequenceTable::Sequence*) const override {
    constexpr std::uint64_t kBehind = 7;
    constexpr std::uint64_t kAhead = 8;
    if (advice == Advice::kRandom) return {};
    const std::uint64_t before = std::min(kBehind, index.value());
    return {before + 1 + kAhead, before, false};
  }
};

/// A page-in that continues a sequence doubles its window and reads forward only; one that continues nothing
/// reads an aligned cluster, as far as such guesses have proved good.
class AdaptiveReadAhead final : public ReadAheadPolicy {
 public:
  AdaptiveReadAhead(std::uint64_t least, std::uint64_t most) : least_(least), most_(most) {}
  ReadWindow choose(VmObject& object, PageIndex index, Advice advice,
                    const SequenceTable::Sequence* last) const override {
    if (advice == Advice::kRandom) return {};
    const bool told = advice == Advice::kSequential;
    if (told || last != nullptr) {
      const std::uint64_t wider = last != nullptr ? std::uint64_t{last->window} * 2 : 0;
      return {std::clamp(wider, told ? most_ : least_, most_), 0, true};
    }
    const std::uint64_t window = object.neighbours.next(static_cast<std::uint32_t>(least_));
    return {window, index.value() % window, false};
  }

 private:
  std::uint64_t least_;
  std::uint64_t most_;
};

}  // namespace

std::unique_ptr<ReadAheadPolicy> make_readahead(ReadAheadMode mode, const VmTunables& tunables) {
  switch (mode) {
    case ReadAheadMode::kOff:
      return std::make_unique<NoReadAhead>();
    case ReadAheadMode::kArticle:
      return std::make_unique<FixedReadAhead>();
    case ReadAheadMode::kAdaptive:
      return std::make_unique<AdaptiveReadAhead>(tunables.readahead_min.value(),
                                                 tunables.readahead_max.value());
  }
  return nullptr;
}

}  // namespace enchilada
