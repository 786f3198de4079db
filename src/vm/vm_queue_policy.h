// QueuePolicy: FreeBSD's replacement, by the queues active, inactive, laundry and cache (freebsd-vm.md §1.9).
//
// Put together from an ActiveScan, a LaundryRule and an IdleWork, in any combination. A step looks at what
// costs least first: the cache queue, then a batch of inactive; each time that all of inactive was seen
// without enough gain, the laundry rule may write and the scan of active refills it. Nothing moves while
// there is no shortage, except by IdleWork. Lock: the daemon's run lock.
#pragma once

#include <memory>

#include "vm/vm_active_scan.h"
#include "vm/vm_laundry_rule.h"
#include "vm/vm_replacement.h"

namespace enchilada {

/// Work on idle pages while memory is not short (ProactiveMode).
class IdleWork {
 public:
  virtual ~IdleWork() = default;
  virtual void tick(ActiveScan& /*scan*/, LaundryRule& /*laundry*/) {}
  [[nodiscard]] virtual bool wants_ticks() const { return false; }
};

[[nodiscard]] std::unique_ptr<IdleWork> make_idle_work(ProactiveMode mode, PageoutOps& ops);

class QueuePolicy final : public ReplacementPolicy {
 public:
  explicit QueuePolicy(PageoutOps& ops);

  bool step(PageoutRun& run) override;
  [[nodiscard]] std::uint64_t limit(const PageoutRun& run) const override {
    return scan_->limit(run, run.pages);
  }
  void run_ends(PageoutRun& run) override { scan_->run_ends(run); }
  std::size_t age(std::size_t pages) override { return scan_->age(pages); }
  [[nodiscard]] unsigned pressure() const override { return scan_->pressure(); }
  void tick() override;
  [[nodiscard]] bool wants_ticks() const override {
    return laundry_->wants_ticks() || idle_work_->wants_ticks();
  }

 private:
  void begin_pass(PageoutRun& run);
  void end_pass(PageoutRun& run);

  PageoutOps& ops_;
  VmSystem& system_;
  std::unique_ptr<ActiveScan> scan_;
  std::unique_ptr<LaundryRule> laundry_;
  std::unique_ptr<IdleWork> idle_work_;
};

}  // namespace enchilada
