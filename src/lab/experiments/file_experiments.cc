// The argument about files' pages: W1, W2, W5, W6, W7 of designs.md. Predictions are from there; where a size
// is smaller than there, `workload` says so.
#include <fmt/format.h>

#include <algorithm>

#include "lab/experiments/rig.h"

namespace enchilada::lab {
namespace {

/// Searches for pages whose every mapping goes: each on its own, figures per page.
Values unmap_pages(Rig& rig, ProcessId process, std::span<const std::uint64_t> pages) {
  rig.begin();
  for (const std::uint64_t page : pages) rig.design().unmap_page(rig.frame(process, page));
  return rig.end(static_cast<double>(pages.size()));
}

// ---- W1

constexpr std::uint64_t kW1Pages = 18'000;
constexpr std::uint64_t kW1Processes = 32;

/// Window n of `size` pages shows the file's n-th last window, so that no two are neighbours in both.
void map_windows(Rig& rig, ProcessId process, FileId file, std::uint64_t pages, std::uint64_t size) {
  for (std::uint64_t at = 0; at < pages; at += size) {
    const std::uint64_t here = std::min(size, pages - at);
    rig.map_file(process, at, here, file, pages - at - here);
  }
}

Values run_w1(std::string_view design, std::uint64_t size) {
  DesignOptions options;
  options.frames = PageCount{kW1Pages + 2'048};
  options.table_pages = PageCount{kW1Processes * 48};
  options.map_entries = kW1Processes * (kW1Pages / size + 2);
  Rig rig(design, options);
  const FileId file = rig.design().create_file(PageCount{20'000});
  const ProcessId first = rig.design().spawn();
  map_windows(rig, first, file, kW1Pages, size);
  for (std::uint64_t page = 0; page < kW1Pages; ++page) rig.read(first, page);
  const auto all = fork_family(rig.design(), first, kW1Processes - 1);
  for (std::size_t i = 1; i < all.size(); ++i) {
    for (std::uint64_t page = 0; page < kW1Pages; ++page) rig.read(all[i], page);
  }
  Values sizes;
  rig.add_bytes(&sizes);
  std::vector<std::uint64_t> sample;
  for (std::uint64_t i = 0; i < 16; ++i) sample.push_back((i * 2 + 1) * kW1Pages / 32);
  Values values = unmap_pages(rig, first, sample);
  values.merge(sizes);
  return values;
}

Judgement judge_w1(const Table& table) {
  const auto visits = [&](std::string_view design, std::uint64_t size) {
    return table.at(design, size, "vma_visits");
  };
  const double prio = visits("objrmap_list", 1) / visits("objrmap_prio", 1);
  const double interval = visits("objrmap_list", 1) / visits("objrmap_interval", 1);
  const double large = visits("objrmap_list", 4096) / visits("objrmap_prio", 4096);
  return {
      verdict_of({prio >= 5'000, interval >= 5'000, large <= 10}),
      fmt::format("windows of one page: list {:.0f} visits, prio tree {:.0f} ({:.0f}x), interval tree {:.0f} "
                  "({:.0f}x); windows of 4,096 pages: list {:.1f}x the prio tree's visits",
                  visits("objrmap_list", 1), visits("objrmap_prio", 1), prio, visits("objrmap_interval", 1),
                  interval, large)};
}

// ---- W2

constexpr std::uint64_t kW2Windows = 100;
constexpr std::uint64_t kW2Pages = 60;  // of a window

Values run_w2(std::string_view design, std::uint64_t tasks) {
  const std::uint64_t pages = kW2Windows * kW2Pages;
  DesignOptions options;
  options.frames = PageCount{pages + 1'024};
  options.table_pages = PageCount{tasks * 24 + 64};
  options.map_entries = tasks * (kW2Windows + 4);
  Rig rig(design, options);
  const FileId file = rig.design().create_file(PageCount{pages});
  std::vector<ProcessId> all;
  for (std::uint64_t t = 0; t < tasks; ++t) {
    all.push_back(rig.design().spawn());
    map_windows(rig, all.back(), file, pages, kW2Pages);
    for (std::uint64_t page = 0; page < pages; ++page) rig.read(all.back(), page);
  }
  std::vector<std::uint64_t> sample;
  for (std::uint64_t page = 7; page < pages; page += 50) sample.push_back(page);
  return unmap_pages(rig, all[0], sample);
}

Judgement judge_w2(const Table& table) {
  const double list = table.at("objrmap_list", 100, "time_us");
  const double prio = table.at("objrmap_prio", 100, "time_us");
  const double chains = table.at("pte_chains", 100, "time_us");
  return {verdict_of({list >= 10 * prio, prio <= 2 * chains}),
          fmt::format(
              "100 tasks, a page unmapped everywhere: list {:.0f} us, prio tree {:.1f} us, chains {:.1f} us; "
              "list {:.1f}x the tree, tree {:.2f}x the chains; visits {:.0f} against {:.0f}",
              list, prio, chains, list / prio, prio / chains, table.at("objrmap_list", 100, "vma_visits"),
              table.at("objrmap_prio", 100, "vma_visits"))};
}

// ---- W5

constexpr std::uint64_t kW5Processes = 100;
constexpr std::uint64_t kW5Pages = 500;

Values run_w5(std::string_view design, std::uint64_t mappers) {
  DesignOptions options;
  options.frames = PageCount{kW5Pages + 512};
  options.table_pages = PageCount{kW5Processes * 6};
  Rig rig(design, options);
  const FileId file = rig.design().create_file(PageCount{kW5Pages});
  std::vector<ProcessId> all;
  for (std::uint64_t i = 0; i < kW5Processes; ++i) {
    all.push_back(rig.design().spawn());
    rig.map_file(all.back(), 0, kW5Pages, file, 0);
    // Something of its own: a process that has nothing mapped would be passed over.
    rig.map_memory(all.back(), 4'096, 1);
    rig.write(all.back(), 4'096);
  }
  Random random(5);
  Values sum;
  std::vector<std::uint64_t> order(kW5Processes);
  for (std::uint64_t i = 0; i < kW5Processes; ++i) order[i] = i;
  rig.begin();
  double hits = 0;
  for (std::uint64_t page = 0; page < kW5Pages; page += 16) {
    for (std::uint64_t i = 0; i < mappers; ++i) {
      std::swap(order[i], order[i + random.below(kW5Processes - i)]);
      rig.read(all[order[i]], page);
    }
    const FrameNumber frame = rig.frame(all[order[0]], page);
    // Only what really shows the page counts: prefaults of neighbours went before.
    const HardwareCounts before = rig.design().hardware().counts();
    rig.design().unmap_page(frame);
    const HardwareCounts& after = rig.design().hardware().counts();
    const auto add = [&](const char* name, auto event) {
      sum[name] += static_cast<double>(after.of(event) - before.of(event));
    };
    add("walk_misses", KernelEvent::kWalkMiss);
    add("vma_visits", KernelEvent::kVmaVisit);
    add("chain_blocks", KernelEvent::kChainBlock);
    add("pv_steps", PmapEvent::kPvListStep);
    hits += 1;
  }
  for (auto& [name, value] : sum) value /= hits;
  sum["walks"] = sum["walk_misses"] + (sum["vma_visits"] > 0 ? static_cast<double>(mappers) : 0);
  const auto m = static_cast<double>(mappers);
  sum["walks_predicted"] = m * (kW5Processes + 1) / (m + 1);
  return sum;
}

Judgement judge_w5(const Table& table) {
  constexpr std::array<std::string_view, 3> kObjects = {"objrmap_list", "objrmap_prio", "objrmap_interval"};
  double worst = 0;
  for (const std::string_view design : kObjects) {
    for (const std::uint64_t m : {3u, 10u, 30u, 100u}) {
      const double got = table.at(design, m, "walks");
      const double want = table.at(design, m, "walks_predicted");
      worst = std::max(worst, std::abs(got - want) / want);
    }
  }
  const double misses = table.at("objrmap_interval", 10, "walk_misses");
  const double others = table.at("pte_chains", 10, "walk_misses") + table.at("freebsd", 10, "walk_misses");
  return {
      verdict_of({worst <= 0.15, misses >= 70 && misses <= 95, others == 0}),
      fmt::format(
          "m = 10 of 100: {:.1f} walks with the list, {:.1f} prio tree, {:.1f} interval tree, of them {:.1f} "
          "misses; predicted 91.8 walks; chains and pv lists {:.0f} misses; largest deviation from "
          "m(k+1)/(m+1) {:.0f} %",
          table.at("objrmap_list", 10, "walks"), table.at("objrmap_prio", 10, "walks"),
          table.at("objrmap_interval", 10, "walks"), misses, others, worst * 100)};
}

// ---- W6

constexpr std::uint64_t kW6Pages = 16'384;
constexpr std::uint64_t kW6Limit = 37'500;

Values run_w6(std::string_view design, std::uint64_t processes) {
  DesignOptions options;
  options.frames = PageCount{kW6Pages + 1'024};
  options.table_pages = PageCount{processes * 48 + 64};
  options.pv_limit = kW6Limit;
  Rig rig(design, options);
  const FileId file = rig.design().create_file(PageCount{kW6Pages});
  std::vector<ProcessId> all;
  for (std::uint64_t i = 0; i < processes; ++i) {
    all.push_back(rig.design().spawn());
    rig.map_file(all.back(), 0, kW6Pages, file, 0);
  }
  const auto round = [&] {
    for (std::uint64_t page = 0; page < kW6Pages; ++page) {
      for (const ProcessId process : all) rig.read(process, page);
    }
  };
  round();
  rig.begin();
  round();
  Values values = rig.end(static_cast<double>(processes * kW6Pages));
  values["faults_per_access"] = values["minor_faults"] + values["major_faults"];
  values["free_frames"] = static_cast<double>(rig.design().free_frames().value());
  rig.add_bytes(&values);
  return values;
}

Judgement judge_w6(const Table& table) {
  const auto faults = [&](std::string_view design, std::uint64_t processes) {
    return table.at(design, processes, "faults_per_access");
  };
  const double before = faults("freebsd", 2);
  const double after = faults("freebsd", 3);
  const double least = 1 - static_cast<double>(kW6Limit) / (3.0 * kW6Pages);
  const double free = table.at("freebsd", 3, "free_frames");
  const double flat = std::max(faults("objrmap_prio", 8), faults("objrmap_list", 8));
  return {
      verdict_of({before <= 0.01, after >= least, free > 0, flat <= 0.01}),
      fmt::format(
          "pv lists: {:.4f} faults an access with two processes, {:.4f} with three (at least {:.3f} was "
          "predicted), {:.4f} with eight, {:.0f} frames free; objrmap at most {:.4f}; entries made anew an "
          "access: {:.3f} with three",
          before, after, least, faults("freebsd", 8), free, flat, table.at("freebsd", 3, "entered"))};
}

// ---- W7

constexpr std::uint64_t kW7File = 32'768;
constexpr std::uint64_t kW7Windows = 8'000;

Values run_w7(std::string_view design, std::uint64_t guests) {
  DesignOptions options;
  options.frames = PageCount{kW7File + 1'024};
  options.table_pages = PageCount{guests * 24 + 64};
  options.map_entries = guests * (kW7Windows + 4);
  Rig rig(design, options);
  const FileId file = rig.design().create_file(PageCount{kW7File});
  Random random(7);
  std::vector<std::pair<ProcessId, std::uint64_t>> seen;
  for (std::uint64_t g = 0; g < guests; ++g) {
    const ProcessId guest = rig.design().spawn();
    for (std::uint64_t i = 0; i < kW7Windows; ++i) rig.map_file(guest, i, 1, file, random.below(kW7File));
    for (std::uint64_t i = 0; i < kW7Windows; i += 40) {
      rig.read(guest, i);
      if (g % 7 == 0 && i % 400 == 0) seen.emplace_back(guest, i);
    }
  }
  rig.begin();
  double unmapped = 0;
  for (const auto& [guest, page] : seen) {
    const FrameNumber frame = rig.design().frame_at(guest, rig_page(page));
    if (frame == kNoFrame) continue;  // shown by two windows, and gone already
    rig.design().unmap_page(frame);
    unmapped += 1;
  }
  return rig.end(unmapped);
}

Judgement judge_w7(const Table& table) {
  const double list = table.at("objrmap_list", 50, "vma_visits");
  const double prio = table.at("objrmap_prio", 50, "vma_visits");
  const double nodes = table.at("objrmap_prio", 50, "index_nodes");
  return {
      verdict_of({list >= 50'000, prio <= 30, nodes <= 60}),
      fmt::format(
          "50 guests with 8,000 windows each: list {:.0f} visits a page, prio tree {:.1f} and {:.1f} nodes",
          list, prio, nodes)};
}

/// m(k+1)/(m+1) tables are looked into, as the rule has it within 15 %.
std::vector<Forecast> w5_forecasts() {
  std::vector<Forecast> forecasts = {{"freebsd", 10, "walk_misses", 0, 0},
                                     {"pte_chains", 10, "walk_misses", 0, 0},
                                     {"objrmap_interval", 10, "walk_misses", 70, 95}};
  for (const std::string_view design : {"objrmap_list", "objrmap_prio", "objrmap_interval"}) {
    for (const std::uint64_t m : {3u, 10u, 30u, 100u}) {
      const double walks = static_cast<double>(m) * 101 / static_cast<double>(m + 1);
      forecasts.push_back({design, m, "walks", 0.85 * walks, 1.15 * walks});
    }
  }
  return forecasts;
}

}  // namespace

std::vector<Experiment> file_experiments() {
  return {
      {.id = "W1",
       .title = "A zillion VMAs in one file",
       .question = "What does a page cost that must leave, when one file is mapped by 576,000 VMAs?",
       .workload = "Ingo Molnar's test-mmap3: 18,000 pages of a file mapped in windows in reverse order, 32 "
                   "processes, "
                   "everything touched; then 16 pages are unmapped everywhere",
       .sweep = "pages of a window",
       .metric = "vma_visits",
       .prediction =
           "list : tree >= 5,000 visits for windows of one page; alike when a window is thousands of pages",
       .rule =
           "held: list/prio >= 5,000 and list/interval >= 5,000 at 1 page, list/prio <= 10 at 4,096 pages",
       .designs = {"freebsd", "pte_chains", "objrmap_list", "objrmap_prio", "objrmap_interval"},
       .points = {1, 16, 256, 4096},
       .run = run_w1,
       .judge = judge_w1},
      {.id = "W2",
       .title = "rmap-test",
       .question = "Does the list of mappings collapse where chains and trees do not?",
       .workload = "Andrew Morton's rmap-test, windows of 60 pages instead of 600: each task maps a file in "
                   "100 windows and "
                   "reads all of it; then every 50th page is unmapped everywhere",
       .sweep = "tasks",
       .metric = "time_us",
       .prediction = "with 100 tasks the list looks at up to 10,000 VMAs a page, the tree at ~100; list >= "
                     "10x the tree's "
                     "time, tree within 2x of the chains'",
       .rule = "held: list/prio >= 10 and prio/chains <= 2 in simulated time at 100 tasks",
       .designs = {"freebsd", "pte_chains", "objrmap_list", "objrmap_prio", "objrmap_interval"},
       .points = {10, 30, 100},
       .run = run_w2,
       .judge = judge_w2,
       .forecasts = {{"objrmap_list", 100, "vma_visits", 0, 10'000},
                     {"objrmap_prio", 100, "vma_visits", 85, 115}},
       .why = "the list's visits are as many as predicted, but cheap: with windows of 60 pages its VMAs stay "
              "in the simulated L2; sizes as in rmap-test's own run are still to be done"},
      {.id = "W5",
       .title = "A library that everybody maps and few use",
       .question = "What does a reverse map by objects pay where only m of k mappings show the page?",
       .workload = "100 processes map one library; m of them, at random, read a page, which is then unmapped "
                   "everywhere",
       .sweep = "m, processes that show the page",
       .metric = "walks",
       .prediction =
           "every index of objrmap looks into m(k+1)/(m+1) page tables: ~92 for m = 10, ~82 of them in vain; "
           "chains and pv lists into none in vain",
       .rule = "held: all three within 15 % of m(k+1)/(m+1) for m >= 3, 70 to 95 misses at m = 10, chains "
               "and pv lists 0",
       .designs = {"freebsd", "pte_chains", "objrmap_list", "objrmap_prio", "objrmap_interval"},
       .points = {1, 3, 10, 30, 100},
       .run = run_w5,
       .judge = judge_w5,
       .forecasts = w5_forecasts()},
      {.id = "W6",
       .title = "A massively shared file, and pv entries run out",
       .question = "What happens when the pool of pv entries is used up while memory is free?",
       .workload = "one file of 64 MiB mapped whole by every process, read page by page, process by process, "
                   "twice; the pool "
                   "has 37,500 entries: 1/32 of 2 GiB and of 1.2 million",
       .sweep = "processes",
       .metric = "faults_per_access",
       .prediction = "exhaustion comes in the third process: minor faults an access rise from ~0 to at least "
                     "1 - limit/working "
                     "set = 0.237 with frames free; objrmap stays flat",
       .rule = "held: pv lists <= 0.01 with two, >= 0.237 with three processes, frames free, objrmap <= 0.01 "
               "with eight",
       .designs = {"freebsd", "pte_chains", "objrmap_list", "objrmap_prio"},
       .points = {1, 2, 3, 4, 8},
       .run = run_w6,
       .judge = judge_w6,
       .forecasts = {{"freebsd", 2, "faults_per_access", 0, 0.01},
                     {"freebsd", 3, "faults_per_access", 0.237, kNoBound},
                     {"objrmap_list", 8, "faults_per_access", 0, 0.01},
                     {"objrmap_prio", 8, "faults_per_access", 0, 0.01}},
       .why = "entries run out in the third process, as the arithmetic says; a refault then maps the "
              "neighbours too (the article's prefault), so there are fewer faults than remade entries"},
      {.id = "W7",
       .title = "User Mode Linux",
       .question =
           "Thousands of one-page windows a guest over one file, without order: what does a page cost?",
       .workload = "each guest maps 8,000 single pages of a file of 32,768, at random; some of the pages "
                   "that are shown are "
                   "unmapped everywhere",
       .sweep = "guests",
       .metric = "vma_visits",
       .prediction = "50 guests: the list looks at up to 400,000 VMAs, the tree at ~12 and ~15 nodes",
       .rule = "held: list >= 50,000 visits (it stops when all are found), prio tree <= 30 visits and <= 60 "
               "nodes",
       .designs = {"pte_chains", "objrmap_list", "objrmap_prio", "objrmap_interval"},
       .points = {10, 50},
       .run = run_w7,
       .judge = judge_w7,
       .forecasts = {{"objrmap_list", 50, "vma_visits", 50'000, 400'000},
                     {"objrmap_prio", 50, "vma_visits", 0, 30},
                     {"objrmap_prio", 50, "index_nodes", 0, 60}}},
  };
}

}  // namespace enchilada::lab
