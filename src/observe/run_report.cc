// Adding counters up, and the summary as text and JSON.
#include "observe/run_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace enchilada {
namespace {

using Json = nlohmann::ordered_json;

double percent(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

std::string per(std::uint64_t pages, std::uint64_t operations) {
  if (operations == 0) return {};
  return fmt::format(" ({:.1f} pages each)", static_cast<double>(pages) / static_cast<double>(operations));
}

std::string outcome(const RunReport& r) {
  if (r.signal != 0) return fmt::format("was ended by signal {}", r.signal);
  return fmt::format("ended with status {}", r.exit_status);
}

std::string line(const char* label, const std::string& text) {
  return fmt::format("  {:<12} {}\n", label, text);
}

}  // namespace

CounterTotals::CounterTotals() : values(kCounterInfoCount) {}

void CounterTotals::add(const VmCounters& counters) {
  for (std::size_t i = 0; i < kCounterInfoCount; ++i) {
    const CounterInfo& info = kCounterInfo[i];
    const std::uint64_t value = (counters.*info.field).load(std::memory_order_relaxed);
    const bool sum = !info.level || info.field == &VmCounters::metadata_bytes;
    values[i] = sum ? values[i] + value : std::max(values[i], value);
  }
  for (std::size_t b = 0; b < buckets.size(); ++b) {
    buckets[b] += counters.fault_time.buckets[b].load(std::memory_order_relaxed);
  }
  time_sum += counters.fault_time.sum.load(std::memory_order_relaxed);
  time_max = std::max(time_max, counters.fault_time.max.load(std::memory_order_relaxed));
}

std::uint64_t CounterTotals::get(Counter VmCounters::*field) const {
  for (std::size_t i = 0; i < kCounterInfoCount; ++i) {
    if (kCounterInfo[i].field == field) return values[i];
  }
  return 0;
}

std::uint64_t CounterTotals::timed_faults() const {
  std::uint64_t n = 0;
  for (const std::uint64_t b : buckets) n += b;
  return n;
}

std::uint64_t CounterTotals::percentile(double share) const {
  const auto wanted = static_cast<std::uint64_t>(share * static_cast<double>(timed_faults()));
  std::uint64_t seen = 0;
  for (std::size_t b = 0; b < buckets.size(); ++b) {
    seen += buckets[b];
    if (buckets[b] != 0 && seen >= wanted) return std::min(TimeHistogram::bucket_floor(b + 1), time_max);
  }
  return 0;
}

std::uint64_t RunReport::own_bytes() const {
  return counters.get(&VmCounters::metadata_bytes) + segment_bytes;
}

std::string human_bytes(std::uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  const bool whole = value >= 100 || value == static_cast<double>(static_cast<std::uint64_t>(value));
  return whole ? fmt::format("{:.0f} {}", value, kUnits[unit])
               : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string human_time(std::uint64_t nanoseconds) {
  const auto ns = static_cast<double>(nanoseconds);
  if (ns < 1e3) return fmt::format("{:.0f} ns", ns);
  if (ns < 1e5) return fmt::format("{:.1f} us", ns / 1e3);
  if (ns < 1e6) return fmt::format("{:.0f} us", ns / 1e3);
  if (ns < 1e9) return fmt::format("{:.1f} ms", ns / 1e6);
  return fmt::format("{:.1f} s", ns / 1e9);
}

std::string human_count(std::uint64_t n) {
  const std::string digits = std::to_string(n);
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i != 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string summary_text(const RunReport& r) {
  const CounterTotals& c = r.counters;
  const auto number = [&](Counter VmCounters::*field) { return human_count(c.get(field)); };
  const std::uint64_t in = c.get(&VmCounters::swappgsin);
  const std::uint64_t reads = c.get(&VmCounters::swapin);
  const std::uint64_t out = c.get(&VmCounters::swappgsout);
  const std::uint64_t writes = c.get(&VmCounters::swapout);
  const std::uint64_t ahead = c.get(&VmCounters::readahead_pages);
  std::string text =
      fmt::format("enchilada: {} {} after {:.2f} s; {} process{} managed{}\n", r.program, outcome(r),
                  r.seconds, human_count(r.processes), r.processes == 1 ? "" : "es",
                  r.processes_alive == 0 ? "" : fmt::format(", {} still alive", r.processes_alive));
  text +=
      line("faults", fmt::format("{}: zero-fill {}, copy-on-write {}, page-in {}, soft {}, reactivated {}",
                                 number(&VmCounters::vm_faults), number(&VmCounters::zfod),
                                 number(&VmCounters::cow_faults), number(&VmCounters::io_faults),
                                 number(&VmCounters::soft_faults), number(&VmCounters::reactivated)));
  text += line("fault time", fmt::format("{} in all: p50 {}, p99 {}, max {}", human_time(c.time_sum),
                                         human_time(c.percentile(0.50)), human_time(c.percentile(0.99)),
                                         human_time(c.time_max)));
  text += line("paged in",
               fmt::format("{} pages in {} reads{}", human_count(in), human_count(reads), per(in, reads)));
  if (ahead != 0) {
    const std::uint64_t hits = c.get(&VmCounters::readahead_hits);
    text += line("read-ahead",
                 fmt::format("{} pages, {:.1f} % of them used", human_count(ahead), percent(hits, ahead)));
  }
  text +=
      line("paged out", fmt::format("{} pages in {} writes{}, {} more were clean", human_count(out),
                                    human_count(writes), per(out, writes), number(&VmCounters::swap_clean)));
  if (r.compressed.limit_bytes != 0) {
    const CompressedReport& s = r.compressed;
    const double ratio = s.packed_bytes == 0
                             ? 1.0
                             : static_cast<double>(s.pages_in) * 4096.0 / static_cast<double>(s.packed_bytes);
    text +=
        line("compressed",
             fmt::format("{} pages {:.1f} : 1, of them {} went on to swap; {} read; {} of {}",
                         human_count(s.pages_in), ratio, human_count(s.written_back),
                         human_count(s.pages_out), human_bytes(s.touched_bytes), human_bytes(s.limit_bytes)));
  }
  text += line("resident", fmt::format("peak {} ({} pages) of --ram {}", human_bytes(r.peak_resident_bytes),
                                       human_count(r.peak_resident_bytes / 4096), human_bytes(r.ram_bytes)));
  text += line("swap", fmt::format("peak {} of {}, {} in use now", human_bytes(r.swap_peak_bytes),
                                   human_bytes(r.swap_bytes), human_bytes(r.swap_used_bytes)));
  if (r.swap_nodeless != 0) {
    text += line("lost swap",
                 fmt::format("{} frees and cuts found no node in {}; found again {} times, {} lost now",
                             human_count(r.swap_nodeless), r.swap_allocator, human_count(r.swap_recounts),
                             human_bytes(r.swap_lost_bytes)));
  }
  text += line(
      "own memory",
      fmt::format("{}: {} metadata, {} shared segment; {:.2f} % of {} managed", human_bytes(r.own_bytes()),
                  human_bytes(c.get(&VmCounters::metadata_bytes)), human_bytes(r.segment_bytes),
                  percent(r.own_bytes(), r.managed_bytes()), human_bytes(r.managed_bytes())));
  const std::uint64_t errors = c.get(&VmCounters::io_errors);
  if (errors != 0) text += line("I/O errors", human_count(errors));
  return text;
}

std::string summary_json(const RunReport& r) {
  const CounterTotals& c = r.counters;
  Json counters = Json::object();
  for (std::size_t i = 0; i < kCounterInfoCount; ++i) counters[kCounterInfo[i].name] = c.values[i];
  Json histogram = Json::array();
  for (std::size_t b = 0; b < c.buckets.size(); ++b) {
    if (c.buckets[b] != 0) histogram.push_back(Json::array({TimeHistogram::bucket_floor(b), c.buckets[b]}));
  }
  const Json json = {
      {"version", 1},
      {"program", r.program},
      {"exit_status", r.exit_status},
      {"signal", r.signal},
      {"seconds", r.seconds},
      {"transport", r.transport},
      {"processes",
       {{"managed", r.processes},
        {"alive", r.processes_alive},
        {"unmanaged", r.unmanaged},
        {"unmanaged_first", r.unmanaged_first}}},
      {"ram",
       {{"limit_bytes", r.ram_bytes},
        {"peak_bytes", r.peak_resident_bytes},
        {"charged_bytes", r.resident_bytes},
        {"peak_pages", r.peak_resident_bytes / 4096}}},
      {"swap",
       {{"limit_bytes", r.swap_bytes},
        {"used_bytes", r.swap_used_bytes},
        {"peak_bytes", r.swap_peak_bytes},
        {"files", r.swap_files},
        {"allocator", r.swap_allocator},
        {"lost_bytes", r.swap_lost_bytes},
        {"nodeless", r.swap_nodeless},
        {"recounts", r.swap_recounts}}},
      {"compressed",
       {{"limit_bytes", r.compressed.limit_bytes},
        {"touched_bytes", r.compressed.touched_bytes},
        {"pages_in", r.compressed.pages_in},
        {"packed_bytes", r.compressed.packed_bytes},
        {"pages_out", r.compressed.pages_out},
        {"written_back", r.compressed.written_back}}},
      {"own",
       {{"bytes", r.own_bytes()},
        {"metadata_bytes", c.get(&VmCounters::metadata_bytes)},
        {"segment_bytes", r.segment_bytes},
        {"managed_bytes", r.managed_bytes()},
        {"percent", percent(r.own_bytes(), r.managed_bytes())}}},
      {"fault_time",
       {{"count", c.timed_faults()},
        {"sum_ns", c.time_sum},
        {"p50_ns", c.percentile(0.50)},
        {"p99_ns", c.percentile(0.99)},
        {"max_ns", c.time_max},
        {"histogram", histogram}}},
      {"counters", counters},
  };
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace enchilada
