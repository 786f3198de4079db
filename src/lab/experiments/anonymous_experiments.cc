// The argument about anonymous pages: W3, W4, W8, W9, W10, W11 of designs.md. Predictions are from there;
// where a size is smaller than there, `workload` says so.
#include <fmt/format.h>

#include <algorithm>

#include "lab/experiments/rig.h"

namespace enchilada::lab {
namespace {

// A function, so that a list of experiments may be asked for before main().
std::vector<std::string_view> anonymous_designs() {
  return {"freebsd", "pte_chains", "anon_vma", "anonmm", "anon_vma_chain_2010", "anon_vma_chain"};
}

// ---- W3

constexpr std::uint64_t kW3Pages = 64;

Values run_w3(std::string_view design, std::uint64_t children) {
  DesignOptions options;
  options.frames = PageCount{(children + 1) * kW3Pages + 1'024};
  options.table_pages = PageCount{(children + 1) * 6 + 64};
  Rig rig(design, options);
  const ProcessId parent = rig.design().spawn();
  rig.map_memory(parent, 0, kW3Pages);
  for (std::uint64_t page = 0; page < kW3Pages; ++page) rig.write(parent, page);
  rig.begin();
  const auto all = fork_family(rig.design(), parent, children);
  const Values forking = rig.end(static_cast<double>(children));
  for (std::size_t i = 1; i < all.size(); ++i) {
    for (std::uint64_t page = 0; page < kW3Pages; ++page) rig.write(all[i], page);
  }
  std::vector<FrameNumber> sample;
  for (std::size_t i = 1; i < all.size(); ++i) {
    for (std::uint64_t page = i % 8; page < kW3Pages; page += 8) sample.push_back(rig.frame(all[i], page));
  }
  rig.begin();
  for (const FrameNumber frame : sample) (void)rig.design().referenced(frame);
  Values values = rig.end(static_cast<double>(sample.size()));
  values["fork_us"] = forking.at("time_us");
  values["fork_allocations"] = forking.at("allocations");
  rig.add_bytes(&values);
  return values;
}

Judgement judge_w3(const Table& table) {
  const auto visits = [&](std::string_view design, std::uint64_t children) {
    return table.at(design, children, "vma_visits");
  };
  const double grows = exponent(50, visits("anon_vma", 50), 400, visits("anon_vma", 400));
  const double chain = visits("anon_vma_chain", 400);
  const double mm = visits("anonmm", 400);
  return {verdict_of({grows >= 0.8, visits("anon_vma", 400) >= 100, chain <= 2, mm <= 2}),
          fmt::format("400 children, a private page: anon_vma {:.0f} visits (growing as children^{:.2f}), "
                      "chains of anon_vmas "
                      "{:.2f}, anonmm {:.2f}",
                      visits("anon_vma", 400), grows, chain, mm)};
}

// ---- W4

constexpr std::uint64_t kW4Pages = 1'000;

Values run_w4(std::string_view design, std::uint64_t children) {
  DesignOptions options;
  options.frames = PageCount{kW4Pages + 1'024};
  options.table_pages = PageCount{(children + 1) * 8 + 64};
  options.map_entries = children * 4;
  Rig rig(design, options);
  const ProcessId parent = rig.design().spawn();
  rig.map_memory(parent, 0, kW4Pages);
  for (std::uint64_t page = 0; page < kW4Pages; ++page) rig.write(parent, page);
  Random random(4);
  for (std::uint64_t i = 0; i < children; ++i) {
    const ProcessId child = rig.design().fork(parent);
    const std::uint64_t kept = kW4Pages / 10;
    const std::uint64_t first = random.below(kW4Pages - kept + 1);
    if (first > 0) CHECK(rig.design().unmap(child, rig_range(0, first)));
    if (first + kept < kW4Pages) {
      CHECK(rig.design().unmap(child, rig_range(first + kept, kW4Pages - first - kept)));
    }
    for (std::uint64_t page = first; page < first + kept; ++page) rig.read(child, page);
  }
  rig.begin();
  double searched = 0;
  double shown = 0;
  for (std::uint64_t page = 50; page < kW4Pages; page += 100) {
    const FrameNumber frame = rig.frame(parent, page);
    const HardwareCounts before = rig.design().hardware().counts();
    rig.design().find_mappings(frame, [&](const Mapping&) { shown += 1; });
    if (before.of(PmapEvent::kPteRead) == rig.design().hardware().counts().of(PmapEvent::kPteRead)) {
      (void)rig.design().referenced(frame);  // a pmap's list is looked at without charge: let it pay
    }
    searched += 1;
  }
  Values values = rig.end(searched);
  values["mapped"] = shown / searched;
  return values;
}

Judgement judge_w4(const Table& table) {
  const auto at = [&](std::string_view design, std::string_view metric) {
    return table.at(design, 1'000, metric);
  };
  const double mapped = at("anon_vma", "mapped");
  return {
      verdict_of({at("anonmm", "walk_misses") >= 500, at("anon_vma", "walk_misses") <= 1,
                  at("anon_vma", "vma_visits") >= 500, at("anon_vma_chain", "vma_visits") <= 1.2 * mapped}),
      fmt::format(
          "1,000 children, {:.0f} of them show a page: anonmm {:.0f} looks, {:.0f} in vain; anon_vma {:.0f} "
          "visits, {:.0f} walks in vain; chains of anon_vmas {:.0f} visits and {:.0f} nodes",
          mapped, at("anonmm", "vma_visits"), at("anonmm", "walk_misses"), at("anon_vma", "vma_visits"),
          at("anon_vma", "walk_misses"), at("anon_vma_chain", "vma_visits"),
          at("anon_vma_chain", "index_nodes"))};
}

// ---- W8

Values run_w8(std::string_view design, std::uint64_t pages) {
  DesignOptions options;
  options.frames = PageCount{2 * pages + 1'024};
  options.table_pages = PageCount{pages / 64 + 64};
  Rig rig(design, options);
  const ProcessId parent = rig.design().spawn();
  rig.map_memory(parent, 0, pages);
  for (std::uint64_t page = 0; page < pages; ++page) rig.write(parent, page);
  const ProcessId child = rig.design().fork(parent);
  for (std::uint64_t page = 0; page < pages; ++page) rig.read(child, page);
  rig.begin();
  CHECK(rig.design().remap(child, rig_range(0, pages), rig_page(pages + 4'096)));
  return rig.end(1);
}

Judgement judge_w8(const Table& table) {
  const double copies = table.at("anonmm", 10'000, "copies");
  double others = 0;
  for (const std::string_view design : anonymous_designs()) {
    if (design != "anonmm") others += table.at(design, 10'000, "copies");
  }
  const double time = table.at("anonmm", 10'000, "time_us") - table.at("anon_vma", 10'000, "time_us");
  return {
      verdict_of({copies >= 9'000, others == 0}),
      fmt::format(
          "10,000 shared pages moved: anonmm copies {:.0f}, all others together {:.0f}; the difference to "
          "anon_vma is {:.0f} us, {:.2f} us a page",
          copies, others, time, time / 10'000)};
}

// ---- W9

/// 0: rights changed page by page, scattered, and restored. 1: two areas touched apart, then the gap is
/// mapped. 2: two areas touched apart, then one is moved beside the other.
Values run_w9(std::string_view design, std::uint64_t scenario) {
  constexpr std::uint64_t kPages = 64;
  Rig rig(design, {.frames = PageCount{1'024}});
  const ProcessId process = rig.design().spawn();
  const auto write_all = [&](std::uint64_t first, std::uint64_t pages) {
    for (std::uint64_t i = 0; i < pages; ++i) rig.write(process, first + (i * 29) % pages);
  };
  const auto protect_all = [&](Prot prot, std::uint64_t step) {
    for (std::uint64_t i = 0; i < kPages; ++i) {
      CHECK(rig.design().protect(process, rig_range((i * step) % kPages, 1), prot));
    }
  };
  if (scenario == 0) {
    rig.map_memory(process, 0, kPages);
    for (std::uint64_t i = 0; i < kPages; i += 2) {
      CHECK(rig.design().protect(process, rig_range((i * 13) % kPages, 1), Prot::kRead));
    }
    CHECK(rig.design().protect(process, rig_range(0, kPages), Prot::kReadWrite));
    write_all(0, kPages);
    protect_all(Prot::kRead, 29);
    protect_all(Prot::kReadWrite, 13);
  } else {
    rig.map_memory(process, 0, kPages / 2);
    rig.map_memory(process, kPages / 2 + (scenario == 1 ? 1 : 512), kPages / 2);
    write_all(0, kPages / 2);
    write_all(kPages / 2 + (scenario == 1 ? 1 : 512), kPages / 2);
    if (scenario == 1) rig.map_memory(process, kPages / 2, 1);
    if (scenario == 2) {
      CHECK(rig.design().remap(process, rig_range(kPages / 2 + 512, kPages / 2), rig_page(kPages / 2)));
    }
  }
  return {{"vmas", static_cast<double>(rig.design().map_entries(process))}};
}

Judgement judge_w9(const Table& table) {
  const auto vmas = [&](std::string_view design, std::uint64_t scenario) {
    return table.at(design, scenario, "vmas");
  };
  return {verdict_of({vmas("anonmm", 0) == 1, vmas("anonmm", 1) == 1, vmas("anonmm", 2) == 1,
                      vmas("anon_vma", 0) == 1, vmas("anon_vma", 1) > 1, vmas("anon_vma", 2) > 1}),
          fmt::format(
              "VMAs at the end (rights restored, gap filled, moved together): anonmm {:.0f}, {:.0f}, {:.0f}; "
              "anon_vma {:.0f}, {:.0f}, {:.0f}; chains of anon_vmas {:.0f}, {:.0f}, {:.0f}; freebsd {:.0f}, "
              "{:.0f}, "
              "{:.0f}",
              vmas("anonmm", 0), vmas("anonmm", 1), vmas("anonmm", 2), vmas("anon_vma", 0),
              vmas("anon_vma", 1), vmas("anon_vma", 2), vmas("anon_vma_chain", 0), vmas("anon_vma_chain", 1),
              vmas("anon_vma_chain", 2), vmas("freebsd", 0), vmas("freebsd", 1), vmas("freebsd", 2))};
}

// ---- W10

constexpr std::uint64_t kW10Pages = 60;
constexpr std::uint64_t kW10Used = 30;

Values run_w10(std::string_view design, std::uint64_t shells) {
  DesignOptions options;
  options.frames = PageCount{shells * 4 + 1'024};
  options.table_pages = PageCount{shells * 6 + 64};
  options.map_entries = shells * 4;
  Rig rig(design, options);
  const FileId libc = rig.design().create_file(PageCount{kW10Pages});
  std::vector<ProcessId> all;
  for (std::uint64_t i = 0; i < shells; ++i) {
    const ProcessId shell = rig.design().spawn();
    rig.map_file(shell, 0, kW10Pages, libc, 0);
    rig.map_memory(shell, 512, 2);
    for (std::uint64_t page = 0; page < kW10Used; ++page) rig.read(shell, page);
    rig.write(shell, 512);
    all.push_back(shell);
  }
  rig.begin();
  for (const ProcessId shell : all) rig.design().exit(shell);
  Values values = rig.end(1);
  values["steps"] = values["chain_blocks"] + values["pv_steps"];
  return values;
}

Judgement judge_w10(const Table& table) {
  const auto grows = [&](std::string_view design, std::string_view metric) {
    return exponent(64, table.at(design, 64, metric), 1'024, table.at(design, 1'024, metric));
  };
  const double chains = grows("pte_chains", "steps");
  const double objects = grows("objrmap_prio", "time_us");
  const double lists = grows("freebsd", "steps");
  return {
      verdict_of({chains >= 1.8, objects <= 1.2, lists <= 1.2}),
      fmt::format("work of all exits grows as shells^x: chain blocks {:.2f}, time with chains {:.2f}; "
                  "time with objrmap "
                  "{:.2f}; pv steps {:.2f} with lists, none with chunks ({:.0f}), time with chunks {:.2f}",
                  chains, grows("pte_chains", "time_us"), objects, lists,
                  table.at("freebsd_modern", 1'024, "pv_steps"), grows("freebsd_modern", "time_us"))};
}

// ---- W11

Values run_w11(std::string_view design, std::uint64_t depth) {
  Rig rig(design, {.frames = PageCount{4'096}, .swap = PageCount{8'192}});
  ProcessId last = rig.design().spawn();
  rig.map_memory(last, 0, 1'024);
  rig.write(last, 0);
  for (std::uint64_t generation = 1; generation <= depth; ++generation) {
    const ProcessId child = rig.design().fork(last);
    rig.design().exit(last);
    last = child;
    rig.write(last, generation % 1'024);  // a page of its own, which descendants inherit
  }
  const KernelAccounts accounts = rig.design().accounts();
  const auto live = [&](KernelType type) {
    return static_cast<double>(accounts[static_cast<std::size_t>(type)].live);
  };
  Values values;
  values["links"] = live(KernelType::kAnonVmaChain);
  values["anon_vmas"] = live(KernelType::kAnonVma);
  values["notes"] = live(KernelType::kAnonMm);
  rig.add_bytes(&values);
  rig.begin();
  CHECK(rig.design().frame_at(last, rig_page(0)) != kNoFrame || design == "freebsd");
  rig.read(last, 0);
  (void)rig.design().referenced(rig.frame(last, 0));
  values.merge(rig.end(1));
  return values;
}

Judgement judge_w11(const Table& table) {
  const double without = table.at("anon_vma_chain_2010", 1'000, "links");
  const double with = table.at("anon_vma_chain", 1'000, "links");
  const double heads = table.at("anon_vma", 1'000, "anon_vmas");
  const double notes = table.at("anonmm", 1'000, "notes");
  return {verdict_of({without >= 1'000, with <= 4, heads == 1, notes >= 500}),
          fmt::format("after 1,000 generations: {:.0f} links without reuse, {:.0f} with; anon_vma {:.0f} "
                      "head; anonmm {:.0f} "
                      "notes, all but one of address spaces that are gone",
                      without, with, heads, notes)};
}

/// anon_vma visits half the family (within 15 %), who has links or an address about one, chains none.
std::vector<Forecast> w3_forecasts() {
  std::vector<Forecast> forecasts = {{"freebsd", 400, "vma_visits", 0, 0},
                                     {"pte_chains", 400, "vma_visits", 0, 0},
                                     {"anonmm", 400, "vma_visits", 0, 2},
                                     {"anon_vma_chain", 400, "vma_visits", 0, 2}};
  for (const std::uint64_t children : {50u, 100u, 200u, 400u}) {
    const double half = static_cast<double>(children) / 2;
    forecasts.push_back({"anon_vma", children, "vma_visits", 0.85 * half, 1.15 * half});
  }
  return forecasts;
}

std::vector<Forecast> w8_forecasts() {
  std::vector<Forecast> forecasts;
  for (const std::string_view design : anonymous_designs()) {
    const bool copies = design == "anonmm";
    forecasts.push_back({design, 10'000, "copies", copies ? 9'000.0 : 0, copies ? 10'000.0 : 0});
  }
  return forecasts;
}

}  // namespace

std::vector<Experiment> anonymous_experiments() {
  return {
      {.id = "W3",
       .title = "Mass fork with copies",
       .question = "What does a private page cost whose owner has many siblings?",
       .workload = "a parent with 64 written pages forks children that each write all 64 (1,000 x 1,000 in "
                   "designs.md); then "
                   "every eighth private page is tested for reference",
       .sweep = "children",
       .metric = "vma_visits",
       .prediction =
           "anon_vma visits half the family, so it grows as children^1; chains of anon_vmas and anonmm ~1 "
           "(\"O(N) to 2\"), PTE chains and pv lists none",
       .rule = "held: anon_vma's exponent >= 0.8 and >= 100 visits at 400 children; anon_vma_chain and "
               "anonmm <= 2",
       .designs = anonymous_designs(),
       .points = {50, 100, 200, 400},
       .run = run_w3,
       .judge = judge_w3,
       .forecasts = w3_forecasts()},
      {.id = "W4",
       .title = "Forks that each unmap parts",
       .question = "Does anonmm lose where relatives have little in common?",
       .workload = "a parent's 1,000 pages; each child keeps a random contiguous tenth and reads it; then 10 "
                   "pages are "
                   "searched",
       .sweep = "children",
       .metric = "walk_misses",
       .prediction = "of 1,000 children ~100 show a page: anonmm walks ~990 address spaces, anon_vma visits "
                     "all VMAs but walks "
                     "only where the page can be, chains of anon_vmas visit ~100",
       .rule = "held: anonmm >= 500 walks in vain, anon_vma <= 1 of them and >= 500 visits, anon_vma_chain "
               "<= 1.2 visits a "
               "mapping",
       .designs = anonymous_designs(),
       .points = {100, 300, 1'000},
       .run = run_w4,
       .judge = judge_w4,
       .forecasts = {{"anonmm", 1'000, "walk_misses", 500, 1'000},
                     {"anon_vma", 1'000, "walk_misses", 0, 1},
                     {"anon_vma", 1'000, "vma_visits", 500, kNoBound},
                     {"anon_vma_chain", 1'000, "vma_visits", 85, 120}}},
      {.id = "W8",
       .title = "mremap of pages shared by fork",
       .question = "What does it cost that anonmm knows one address for a page?",
       .workload = "a parent writes pages and forks; the child reads and moves them all",
       .sweep = "pages",
       .metric = "copies",
       .prediction = "anonmm copies up to all 10,000 pages, every other design none",
       .rule = "held: anonmm >= 9,000 copies of 10,000, the others 0",
       .designs = anonymous_designs(),
       .points = {100, 1'000, 10'000},
       .run = run_w8,
       .judge = judge_w8,
       .forecasts = w8_forecasts()},
      {.id = "W9",
       .title = "Merging of VMAs",
       .question = "\"anonmm allows full vma merging\": and anon_vma?",
       .workload = "64 pages: rights changed page by page and restored (0); two areas written apart, the gap "
                   "mapped then "
                   "(1); two areas written apart, one moved beside the other (2)",
       .sweep = "scenario",
       .metric = "vmas",
       .prediction = "anonmm always 1; anon_vma 1 for splits of one mapping, more than 1 for neighbours "
                     "written apart, and "
                     "after mremap never 1",
       .rule = "held: anonmm 1, 1, 1 and anon_vma 1, > 1, > 1",
       .designs = anonymous_designs(),
       .points = {0, 1, 2},
       .run = run_w9,
       .judge = judge_w9,
       .point_names = {"rights restored", "gap filled", "moved together"},
       .forecasts = {{"anonmm", 0, "vmas", 1, 1},
                     {"anonmm", 1, "vmas", 1, 1},
                     {"anonmm", 2, "vmas", 1, 1},
                     {"anon_vma", 0, "vmas", 1, 1},
                     {"anon_vma", 1, "vmas", 2, kNoBound},
                     {"anon_vma", 2, "vmas", 2, kNoBound}}},
      {.id = "W10",
       .title = "Fork and exit storm",
       .question = "How does the work of exits grow with the processes that share a library?",
       .workload =
           "shells that each read 30 pages of one libc and write one of their own; all exit, oldest first",
       .sweep = "shells",
       .metric = "time_us",
       .prediction = "PTE chains: removal costs m, so all exits together grow as the square; objrmap and pv "
                     "entries linearly",
       .rule = "held: exponent of chain blocks >= 1.8, of objrmap's time <= 1.2, of pv steps <= 1.2",
       .designs = {"freebsd", "freebsd_modern", "pte_chains", "objrmap_list", "objrmap_prio",
                   "objrmap_interval"},
       .points = {64, 256, 1'024},
       .run = run_w10,
       .judge = judge_w10,
       .why =
           "with chunks an exit walks its own (pmap_remove_pages) and is linear; with lists, where FreeBSD 4 "
           "had a second one by address space, each entry is looked for along its frame's list"},
      {.id = "W11",
       .title = "Fork lineage",
       .question = "What piles up when a child forks, its parent exits, and so on?",
       .workload = "each generation writes one page, forks, and exits",
       .sweep = "generations",
       .metric = "bytes",
       .prediction = "a link for every generation without reuse of anon_vmas, a bounded number with it; "
                     "anon_vma constant; "
                     "anonmm constant per space, but pages pin the notes of spaces that are gone",
       .rule =
           "held: after 1,000 generations >= 1,000 links without reuse, <= 4 with; 1 anon_vma; >= 500 notes",
       .designs = anonymous_designs(),
       .points = {1, 10, 100, 1'000},
       .run = run_w11,
       .judge = judge_w11,
       .forecasts = {{"anon_vma_chain_2010", 1'000, "links", 1'000, kNoBound},
                     {"anon_vma_chain", 1'000, "links", 0, 4},
                     {"anon_vma", 1'000, "anon_vmas", 1, 1},
                     {"anonmm", 1'000, "notes", 500, kNoBound}}},
  };
}

}  // namespace enchilada::lab
