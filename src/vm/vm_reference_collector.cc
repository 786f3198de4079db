// Reference bits, and withdrawal where there are none.
#include "vm/vm_reference_collector.h"

namespace enchilada {
namespace {

/// The machine's bits, tested and cleared through the pv list (at most 5), and what was noted meanwhile.
class BitCollector final : public ReferenceCollector {
 public:
  explicit BitCollector(PmapSystem& pmaps) : pmaps_(pmaps) {}
  unsigned collect(Page& page, FrameNumber frame) override {
    const unsigned refs = page.take_referenced() ? 1 : 0;
    return page.has(Page::kMapped) ? refs + pmaps_.ts_referenced(frame) : refs;
  }
  [[nodiscard]] bool by_absence() const override { return false; }

 private:
  PmapSystem& pmaps_;
};

/// Faults tell: a page that is used while it is unmapped comes back to active by itself.
class WithdrawalCollector final : public ReferenceCollector {
 public:
  unsigned collect(Page& page, FrameNumber /*frame*/) override { return page.take_referenced() ? 1 : 0; }
  [[nodiscard]] bool by_absence() const override { return true; }
};

}  // namespace

std::unique_ptr<ReferenceCollector> make_reference_collector(ReferenceMode mode, PmapSystem& pmaps) {
  if (!pmaps.has_reference_bits()) mode = ReferenceMode::kWithdrawal;
  switch (mode) {
    case ReferenceMode::kBits:
      return std::make_unique<BitCollector>(pmaps);
    case ReferenceMode::kWithdrawal:
      return std::make_unique<WithdrawalCollector>();
  }
  return nullptr;
}

}  // namespace enchilada
