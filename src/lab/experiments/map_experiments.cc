// The argument about the structure that finds a map's entries: L1, L2, L3, L5 and L6 of designs.md §6, on the
// engine's own map with each of its structures and with the list that it had once. All is counted, nothing
// timed. Predictions are from there.
//
// A node looked at is a cache line in the list and the binary trees, whose entries have key and links in one,
// and three in the B-tree: two of keys, one of the way down.
#include <fmt/format.h>

#include <random>

#include "base/check.h"
#include "lab/baselines/bare_map.h"
#include "lab/experiments/experiment.h"

namespace enchilada::lab {
namespace {

constexpr std::string_view kTrees[] = {"avl", "red-black", "splay", "b-tree"};

std::vector<std::string_view> structures() {
  std::vector<std::string_view> all = {"list"};
  all.insert(all.end(), std::begin(kTrees), std::end(kTrees));
  return all;
}

BareMap make_map(std::string_view structure) {
  const MapIndexFactory index = find_map_index(structure);
  CHECK(index != nullptr);
  return BareMap(index);
}

double lines_per_node(std::string_view structure) {
  return structure == "b-tree" ? 3 : 1;
}

double best_tree(const Table& table, std::uint64_t point, std::string_view metric) {
  double best = kNoBound;
  for (const std::string_view tree : kTrees) best = std::min(best, table.at(tree, point, metric));
  return best;
}

/// `n` lookups of random pages. A splay tree that was filled in order is one long chain until then.
void look_up_at_random(BareMap& map, int n, std::uint64_t pages, std::mt19937_64& random) {
  for (int i = 0; i < n; ++i) (void)map.look_up(random() % pages);
}

/// Nodes looked at since `before`, for one access.
Values nodes_since(const BareMap& map, std::uint64_t before, int accesses, std::string_view structure) {
  const double visits = static_cast<double>(map.counters.map_nodes.load() - before) / accesses;
  return {{"visits", visits}, {"lines", visits * lines_per_node(structure)}};
}

Values counts_of(const BareMap& map, double operations) {
  const VmCounters& c = map.counters;
  const auto value = [](const auto& counter) { return static_cast<double>(counter.load()); };
  return {{"visits", value(c.map_nodes)},
          {"visits_per_operation", value(c.map_nodes) / operations},
          {"searches", value(c.map_lookups)},
          {"inserts", value(c.map_inserts)},
          {"erases", value(c.map_erases)},
          {"rotations", value(c.map_rotations)},
          {"node_splits", value(c.map_node_splits)},
          {"bytes", static_cast<double>(map.bytes())},
          {"entries", static_cast<double>(map.map->entry_count())}};
}

/// A map of 2n pages, of which every other one was made read-only, one call each.
void protect_pages(BareMap& map, std::uint64_t n, bool shuffled) {
  map.insert(0, 2 * n);
  map.protect_each(order_of(n, shuffled), 2, Prot::kRead);
}

Values run_protect(std::string_view structure, std::uint64_t n, bool shuffled) {
  BareMap map = make_map(structure);
  protect_pages(map, n, shuffled);
  return counts_of(map, static_cast<double>(n));
}

Values run_l1(std::string_view structure, std::uint64_t n) {
  return run_protect(structure, n, true);
}
Values run_l2(std::string_view structure, std::uint64_t n) {
  return run_protect(structure, n, false);
}

Values run_l3(std::string_view structure, std::uint64_t entries) {
  constexpr int kLookups = 20'000;
  BareMap map = make_map(structure);
  map.fill_by_protection(entries);
  std::mt19937_64 random(1);
  look_up_at_random(map, 1'000, entries, random);
  const std::uint64_t before = map.counters.map_nodes.load();
  look_up_at_random(map, kLookups, entries, random);
  return nodes_since(map, before, kLookups, structure);
}

Values run_l5(std::string_view structure, std::uint64_t n) {
  BareMap map = make_map(structure);
  protect_pages(map, n, true);
  const auto between = static_cast<double>(map.map->entry_count());
  map.protect_each(order_of(n, true, 2), 2, Prot::kReadWrite);
  Values values = counts_of(map, static_cast<double>(2 * n));
  values["entries_between"] = between;
  return values;
}

/// Distributed shared memory: a twentieth of the accesses to 10,000 pages changes a page's protection. Of the
/// pages, `in_use` are in use at a time; one of them is changed for another every 64 accesses.
Values run_l6(std::string_view structure, std::uint64_t in_use) {
  constexpr std::uint64_t kPages = 10'000;
  constexpr int kAccesses = 200'000;
  BareMap map = make_map(structure);
  map.fill_by_protection(kPages);
  std::mt19937_64 random(1);
  std::vector<std::uint64_t> pages = order_of(kPages, true);
  look_up_at_random(map, 20'000, kPages, random);
  const std::uint64_t before = map.counters.map_nodes.load();
  for (int i = 0; i < kAccesses; ++i) {
    const std::uint64_t r = random();
    const std::uint64_t at = r % in_use;
    if ((r >> 32) % 64 == 0) std::swap(pages[at], pages[(r >> 40) % kPages]);
    (void)map.look_up(pages[at]);
    if ((r >> 20) % 20 != 0) continue;
    BareMap::must(
        map.map->protect(BareMap::page(pages[at]), (r >> 10) % 2 != 0 ? Prot::kRead : Prot::kReadWrite));
  }
  return nodes_since(map, before, kAccesses, structure);
}

Judgement judge_l1(const Table& table) {
  const auto grows = [&](std::string_view structure) {
    return exponent(1'000, table.at(structure, 1'000, "visits"), 10'000,
                    table.at(structure, 10'000, "visits"));
  };
  double steepest = 0;
  for (const std::string_view tree : kTrees) steepest = std::max(steepest, grows(tree));
  const double list = table.at("list", 10'000, "visits");
  return {verdict_of({grows("list") >= 1.8, list >= 2.5e7, list <= 5e7, steepest <= 1.25}),
          fmt::format(
              "10,000 pages at random: the list looks at {:.3g} nodes (growing as pages^{:.2f}), AVL {:.3g}, "
              "red-black {:.3g}, splay {:.3g}, B-tree {:.3g}; the steepest tree grows as pages^{:.2f}",
              list, grows("list"), table.at("avl", 10'000, "visits"), table.at("red-black", 10'000, "visits"),
              table.at("splay", 10'000, "visits"), table.at("b-tree", 10'000, "visits"), steepest)};
}

Judgement judge_l2(const Table& table) {
  const double list = table.at("list", 10'000, "visits");
  const double best = best_tree(table, 10'000, "visits");
  return {verdict_of({list <= best}),
          fmt::format(
              "10,000 pages in order: the list looks at {:.2f} nodes an operation, the best tree at {:.2f}",
              list / 10'000, best / 10'000)};
}

Judgement judge_l3(const Table& table) {
  const double few = table.at("list", 16, "lines");
  const double many = table.at("list", 64, "lines");
  return {verdict_of({few <= best_tree(table, 16, "lines"), many > best_tree(table, 64, "lines")}),
          fmt::format(
              "lines a random lookup: 16 entries list {:.1f}, best tree {:.1f}; 64 entries list {:.1f}, best "
              "tree {:.1f}",
              few, best_tree(table, 16, "lines"), many, best_tree(table, 64, "lines"))};
}

Judgement judge_l5(const Table& table) {
  double most = 0;
  for (const std::string_view structure : structures()) {
    most = std::max(most, table.at(structure, 10'000, "entries"));
  }
  return {verdict_of({most == 1, table.at("list", 10'000, "entries_between") == 20'000}),
          fmt::format("20,000 entries between; after the rights are restored at most {:.0f} in any structure",
                      most)};
}

Judgement judge_l6(const Table& table) {
  const auto gain = [&](std::string_view structure) {
    return table.at(structure, 10'000, "visits") / table.at(structure, 64, "visits");
  };
  const double others = std::max({gain("avl"), gain("red-black"), gain("b-tree")});
  return {verdict_of({gain("splay") > others, gain("list") > others}),
          fmt::format(
              "nodes an access, all pages against 64 at a time: list {:.2f} times as many, splay {:.2f}, AVL "
              "{:.2f}, red-black {:.2f}, B-tree {:.2f}",
              gain("list"), gain("splay"), gain("avl"), gain("red-black"), gain("b-tree"))};
}

Experiment l1() {
  return {
      .id = "L1",
      .title = "mprotect page by page, at random",
      .question = "what does a malloc debugger do to a list of map entries?",
      .workload =
          "every other page of a mapping is made read-only in random order, one call each: 2n entries",
      .sweep = "pages protected",
      .metric = "visits",
      .prediction = "list Theta(n^2), 25 to 50 million nodes looked at for n = 10,000; trees Theta(n log n)",
      .rule =
          "held: from 1,000 to 10,000 pages the list's nodes grow as pages^1.8 or more and are 25 to 50 "
          "million at 10,000, every tree's as pages^1.25 or less",
      .designs = structures(),
      .points = {100, 316, 1'000, 3'162, 10'000},
      .run = run_l1,
      .judge = judge_l1,
      .forecasts = {{"list", 10'000, "visits", 2.5e7, 5e7}}};
}

Experiment l2() {
  return {.id = "L2",
          .title = "mprotect page by page, in order",
          .question = "is the list bad, or the order?",
          .workload = "as L1, in order of address",
          .sweep = "pages protected",
          .metric = "visits_per_operation",
          .prediction =
              "the list with its hint ties with the trees or beats them: the complaint depends on the order",
          .rule = "held: for 10,000 pages the list looks at no more nodes than the best tree",
          .designs = structures(),
          .points = {100, 316, 1'000, 3'162, 10'000},
          .run = run_l2,
          .judge = judge_l2,
          .why =
              "it is a tie but for one node in 10,000 operations: the hint belongs to the map and stands "
              "before every structure, so that in order none of them is asked"};
}

Experiment l3() {
  return {.id = "L3",
          .title = "From how many entries on a tree pays",
          .question = "where do list and trees cross?",
          .workload = "20,000 lookups of random pages among n entries of a page each",
          .sweep = "entries",
          .metric = "lines",
          .prediction = "the list touches fewer cache lines up to 20 to 60 entries",
          .rule = "held: the list touches no more lines than the best tree at 16 entries, and more at 64",
          .designs = structures(),
          .points = {4, 8, 16, 32, 64, 128, 256, 1'024},
          .run = run_l3,
          .judge = judge_l3,
          .why =
              "a node is one line in list and AVL tree alike, and of n entries the list looks at a third, "
              "the tree at log2(n): they meet at about five. What else favours a short list (its order in "
              "memory, no branch mispredicted) is not counted"};
}

Experiment l5() {
  return {.id = "L5",
          .title = "Entries merge back",
          .question = "is a map as it was once all protections are?",
          .workload = "as L1, then every page's rights are restored in another random order",
          .sweep = "pages protected",
          .metric = "entries",
          .prediction = "one entry again in every structure",
          .rule = "held: 20,000 entries for 10,000 pages, then one, in every structure",
          .designs = structures(),
          .points = {1'000, 10'000},
          .run = run_l5,
          .judge = judge_l5,
          .forecasts = {{"list", 10'000, "entries", 1, 1}}};
}

Experiment l6() {
  return {
      .id = "L6",
      .title = "Distributed shared memory",
      .question = "who gains when the same pages are looked up again and again?",
      .workload =
          "200,000 accesses to 10,000 entries, a twentieth of them changes a page's protection; all pages "
          "are in use, or 64 at a time",
      .sweep = "pages in use at a time",
      .metric = "visits",
      .prediction = "the splay tree and the list's hint gain most from locality",
      .rule =
          "held: nodes an access with all pages in use, against 64, fall by a larger factor for the splay "
          "tree, and for the list, than for any other structure",
      .designs = structures(),
      .points = {64, 10'000},
      .run = run_l6,
      .judge = judge_l6,
      .why =
          "the list begins where the last lookup ended, and the pages in use lie anywhere: it walks a third "
          "of itself in either case. The splay tree gains, but a fifth only: its lookups just look, and it "
          "is splayed when one has gone too deep"};
}

}  // namespace

std::vector<Experiment> map_experiments() {
  return {l1(), l2(), l3(), l5(), l6()};
}

}  // namespace enchilada::lab
