// The constants, one after the other. Invariants: see calibrate.h.
#include "lab/calibrate/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "lab/calibrate/probes.h"

namespace enchilada::lab {
namespace {

using Figure = std::optional<double>;

double ns(Picoseconds cost) {
  return static_cast<double>(cost.value()) / 1000;
}

/// What b takes more than a; none where noise has it less.
Figure difference(Figure b, Figure a) {
  return a && b && *b > *a ? Figure(*b - *a) : std::nullopt;
}

class Calibration {
 public:
  Calibration(const CostModel& model, const CalibrateOptions& options) : model_(model), options_(options) {}

  std::vector<Measurement> run() {
    caches();
    translation();
    pages();
    faults();
    shoot_downs();
    software();
    disk();
    return std::move(list_);
  }

 private:
  void say(const std::string& what) const {
    if (options_.progress) options_.progress(what);
  }
  void add(std::string constant, std::string what, Figure model, Figure measured, std::string reason = {}) {
    if (measured) reason.clear();
    if (!measured && reason.empty()) reason = "drowned in noise: try again when the machine is quiet";
    list_.push_back({std::move(constant), std::move(what), model, measured, std::move(reason)});
  }

  void caches() {
    say("caches and memory");
    const CacheSizes sizes = cache_sizes();
    const Figure l1 = probe_load(sizes.l1 / 2);
    const Figure l2 = probe_load(std::max(sizes.l2 / 2, sizes.l1 * 3));
    const Figure l3 = probe_load(std::clamp(sizes.l3 / 4, sizes.l2 * 2, std::size_t{16} << 20));
    const Figure memory = probe_load(std::clamp(sizes.l3 * 4, std::size_t{64} << 20, std::size_t{256} << 20));
    add("l1", "a load that finds its line in the first cache", ns(model_.l1), l1);
    add("l2", "in the second, beyond l1", ns(model_.l2), difference(l2, l1));
    add("l3", "in the third, beyond l2", ns(model_.l3), difference(l3, l2));
    add("memory", "in none, beyond l3", ns(model_.memory), difference(memory, l3));
  }

  void translation() {
    say("translation");
    add("tlb_second", "a translation found in the second-level TLB", ns(model_.tlb_second),
        probe_translation(256));
    add("(walk)", "a page walk, its tables partly in caches; the model charges each load", std::nullopt,
        probe_translation(16'384));
  }

  void pages() {
    say("pages");
    add("zero_page", "zeroing a page", ns(model_.zero_page), probe_zero_page());
    add("copy_page", "copying a page", ns(model_.copy_page), probe_copy_page());
  }

  void faults() {
    say("faults");
    const double mapping =
        ns(model_.fault_trap) + ns(model_.of(KernelEvent::kMinorFault)) + ns(model_.of(PmapEvent::kEnter));
    add("fault_trap + minor_fault + enter", "a fault that maps a page which is there", mapping,
        probe_mapping_fault());
    add("... + zero_page", "first write to anonymous memory", mapping + ns(model_.zero_page),
        probe_zero_fill_fault());
  }

  void shoot_downs() {
    say("shoot-downs");
    const Figure alone = probe_protect(false);
    add("(mprotect)", "a written page made read-only, one thread", std::nullopt, alone);
    add("interrupt_send", "the same beside a running thread: what it takes more", ns(model_.interrupt_send),
        difference(probe_protect(true), alone), "needs two CPUs, and the other thread on one of them");
  }

  void software() {
    say("locks and allocations");
    add("kernel lock", "an uncontended lock taken and given back", ns(model_.of(KernelEvent::kLock)),
        probe_lock_pair());
    add("allocation + free", "malloc and free of 64 bytes",
        ns(model_.of(KernelEvent::kAllocation)) + ns(model_.of(KernelEvent::kFree)), probe_allocation_pair());
  }

  void disk() {
    say("disk");
    const DiskReads reads = probe_disk(options_.folder);
    const std::string reason = options_.folder + ": no file that can be read past the page cache";
    const double seek = ns(model_.disk.seek);
    const double page = ns(model_.disk.page);
    const Figure more = difference(reads.sixteen, reads.page);
    add("disk.seek + disk.page", "a page of a file at random, past the page cache", seek + page, reads.page,
        reason);
    add("disk.page", "each further page of sixteen", page, more ? Figure(*more / 15) : std::nullopt,
        reads.page ? "" : reason);
    const double fault = ns(model_.fault_trap) + ns(model_.of(KernelEvent::kMajorFault));
    add("fault_trap + major_fault + disk", "a page of a mapped file at random", fault + seek + page,
        reads.major_fault, options_.folder + ": its pages did not leave memory");
  }

  const CostModel& model_;
  const CalibrateOptions& options_;
  std::vector<Measurement> list_;
};

Figure ratio(const Measurement& one) {
  return one.model_ns && one.measured_ns ? Figure(*one.measured_ns / *one.model_ns) : std::nullopt;
}

std::string shown(Figure figure, int digits) {
  return figure ? fmt::format("{:.{}f}", *figure, digits) : "-";
}

nlohmann::json json_of(Figure figure) {
  return figure ? nlohmann::json(*figure) : nlohmann::json();
}

}  // namespace

std::vector<Measurement> calibrate(const CostModel& model, const CalibrateOptions& options) {
  return Calibration(model, options).run();
}

std::string calibration_text(const std::vector<Measurement>& measurements) {
  std::string text =
      fmt::format("{:<34}{:>12}{:>12}{:>8}  {}\n", "constant", "model, ns", "here, ns", "ratio", "what");
  for (const Measurement& one : measurements) {
    text += fmt::format("{:<34}{:>12}{:>12}{:>8}  {}{}\n", one.constant, shown(one.model_ns, 2),
                        shown(one.measured_ns, 2), shown(ratio(one), 2), one.what,
                        one.reason.empty() ? "" : " (" + one.reason + ")");
  }
  return text;
}

std::string calibration_json(const std::vector<Measurement>& measurements) {
  nlohmann::json json = {{"schema", 1}, {"calibration", nlohmann::json::array()}};
  for (const Measurement& one : measurements) {
    json["calibration"].push_back(
        {{"constant", one.constant},
         {"what", one.what},
         {"model_ns", json_of(one.model_ns)},
         {"measured_ns", json_of(one.measured_ns)},
         {"ratio", json_of(ratio(one))},
         {"reason", one.reason.empty() ? nlohmann::json() : nlohmann::json(one.reason)}});
  }
  return json.dump(1) + "\n";
}

}  // namespace enchilada::lab
