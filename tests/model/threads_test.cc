// Several threads in one address space with hardly any memory: each owns a range that it maps, unmaps,
// protects, moves, wires and uses as it likes; all read a common range; another one reclaims, drops mappings,
// resizes memory and forks.
//
// Invariant: a thread's own range follows the flat model exactly, whatever the others do. Every value says
// whose it is, so that a page in the wrong place is found wherever it is read. Threads make a run differ each
// time; the seed fixes what each thread does.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#include "flat_model.h"
#include "machine/soft_engine.h"
#include "random_modes.h"
#include "random_run.h"
#include "random_source.h"
#include "validate/validate.h"
#include "vm/vm_object.h"
#include "vm/vm_pageout.h"
#include "vm/vm_pagequeue.h"
#include "vm/vm_phys.h"

namespace enchilada::model {
namespace {

constexpr std::uint64_t kCommonPages = 40;
constexpr std::uint64_t kOwnPages = 64;
constexpr unsigned kThreads = 4;
constexpr unsigned kSteps = 2000;
constexpr std::uint64_t kCommonOwner = 0xee;

/// Owner, page and word in one value, and which store it was.
std::uint64_t value_of(std::uint64_t owner, VirtAddr page, std::size_t word, std::uint64_t store) {
  return owner << 56 | (page.value() >> kPageShift) << 40 | std::uint64_t{word} << 36 | store;
}
bool belongs(std::uint64_t value, std::uint64_t owner, VirtAddr page, std::size_t word) {
  return value == 0 || value >> 36 == value_of(owner, page, word, 0) >> 36;
}

/// The engine, the one map, and what the threads tell each other.
struct Stage {
  explicit Stage(std::uint64_t seed);
  FaultResult touch(VmMap& map, VirtAddr page, Access access, FunctionRef<void(std::byte*)> use);
  [[gnu::format(printf, 2, 3)]] void fail(const char* text, ...);
  [[nodiscard]] VirtAddr page(std::uint64_t n) const { return map->bounds().start + to_bytes(PageCount{n}); }
  [[nodiscard]] VirtRange own_range(unsigned thread) const {
    const std::uint64_t first = kCommonPages + thread * kOwnPages;
    return {page(first), page(first + kOwnPages)};
  }
  void fill_common();
  void check_common(VmMap& in, std::uint64_t n);
  void validate();

  SoftEngine engine;
  std::unique_ptr<VmMap> map;
  std::atomic<bool> failed{false};
  std::atomic<unsigned> running{kThreads};
  // A fork copies wired memory at once, while its owner goes on writing to it (FreeBSD's does, too): a race
  // of the program with itself. So nobody forks while anybody has wired memory.
  std::mutex fork_or_wire;
  unsigned wirers = 0;  // fork_or_wire
};

SoftEngineOptions options_of(std::uint64_t seed) {
  Random random(seed);
  SoftEngineOptions options;
  options.seed = seed;
  options.machine.memory.frames = PageCount{random.between(72, 160)};
  options.machine.pmap.table_pages = PageCount{48};
  options.machine.pmap.reference_bits = random.one_in(2);
  options.machine.pmap.dirty_bits = options.machine.pmap.reference_bits || random.one_in(2);
  options.machine.pmap.one_address = !options.machine.pmap.dirty_bits;
  options.swap_pages = {16384, 16384};
  options.bounce_buffers = static_cast<unsigned>(random.between(1, 5));
  options.async_looks = static_cast<unsigned>(random.below(4));
  if (random.one_in(2)) options.tunables.zero_fill_cluster = PageCount{1};
  if (random.one_in(2)) options.tunables.readahead_max = PageCount{8};
  if (random.one_in(2)) choose_page_modes(random, options.modes);
  override_modes(&options.modes);
  return options;
}

Stage::Stage(std::uint64_t seed)
    : engine(options_of(seed)), map(engine.create_map(PageCount{kCommonPages + kThreads * kOwnPages})) {}

void Stage::fail(const char* text, ...) {
  if (failed.exchange(true)) return;
  char line[300];
  va_list arguments;
  va_start(arguments, text);
  std::vsnprintf(line, sizeof(line), text, arguments);
  va_end(arguments);
  ADD_FAILURE() << line;
}

FaultResult Stage::touch(VmMap& in, VirtAddr page, Access access, FunctionRef<void(std::byte*)> use) {
  auto& pmap = static_cast<SoftPmap&>(in.pmap());
  for (int i = 0; i < 100000; ++i) {
    if (pmap.access(page, access, use)) return FaultResult::kResolved;
    const FaultResult result = vm_fault(in, page, access);
    if (result != FaultResult::kResolved) return result;
  }
  fail("access at %llx faults for ever", static_cast<unsigned long long>(page.value()));
  return FaultResult::kNotMapped;
}

void Stage::fill_common() {
  VirtAddr at{0};
  VmMap::MapRequest request;
  request.length = to_bytes(PageCount{kCommonPages});
  request.hint = page(0);
  request.placement = VmMap::MapRequest::Placement::kFixedExclusive;
  if (map->map(request, &at) != KernReturn::kSuccess) return fail("the common range cannot be mapped");
  for (std::uint64_t n = 0; n < kCommonPages; ++n) {
    const FaultResult result = touch(*map, page(n), Access::kWrite, [&](std::byte* bytes) {
      for (std::size_t word = 0; word < kWords; ++word) {
        const std::uint64_t value = value_of(kCommonOwner, page(n), word, 1);
        std::memcpy(bytes + word_offset(word), &value, 8);
      }
    });
    if (result != FaultResult::kResolved) return fail("the common range cannot be filled");
  }
  if (map->protect({page(0), page(kCommonPages)}, Prot::kRead) != KernReturn::kSuccess)
    fail("protect failed");
}

void Stage::check_common(VmMap& in, std::uint64_t n) {
  std::array<std::uint64_t, kWords> seen{};
  const FaultResult result = touch(in, page(n), Access::kRead, [&](std::byte* bytes) {
    for (std::size_t word = 0; word < kWords; ++word) std::memcpy(&seen[word], bytes + word_offset(word), 8);
  });
  if (result != FaultResult::kResolved)
    return fail("common page %llu: fault result %d", static_cast<unsigned long long>(n),
                static_cast<int>(result));
  for (std::size_t word = 0; word < kWords; ++word) {
    if (seen[word] != value_of(kCommonOwner, page(n), word, 1)) {
      fail("common page %llu word %zu is %llx", static_cast<unsigned long long>(n), word,
           static_cast<unsigned long long>(seen[word]));
    }
  }
}

void Stage::validate() {
  VmMap* const maps[] = {map.get()};
  const std::span<VmMap* const> all =
      map == nullptr ? std::span<VmMap* const>() : std::span<VmMap* const>(maps);
  const Problems problems = find_problems({.system = engine.system(),
                                           .maps = all,
                                           .pmaps = &engine.machine().pmaps(),
                                           .pager = &engine.pager(),
                                           .space = &engine.space()});
  EXPECT_TRUE(problems.empty()) << to_text(problems);
}

// ---- a thread with a range of its own
// ----------------------------------------------------------------------------

class Owner {
 public:
  Owner(Stage& stage, unsigned number, std::uint64_t seed)
      : stage_(stage), number_(number), random_(seed * 131 + number), model_(stage.own_range(number)) {}

  void run(unsigned steps) {
    for (unsigned i = 0; i < steps && !stage_.failed.load(); ++i) step();
    stage_.running.fetch_sub(1);
  }
  void check_all() {
    for (auto& [number, page] : model_.pages()) {
      if (page.readable()) load(VirtAddr{number << kPageShift});
    }
  }

 private:
  void step() {
    settle_wiring();
    switch (random_.below(16)) {
      case 0:
      case 1:
        return map();
      case 2:
        return remove();
      case 3:
        return protect();
      case 4:
        return advise();
      case 5:
        return remap();
      case 6:
        return wire();
      case 7:
      case 8:
        return stage_.check_common(*stage_.map, random_.below(kCommonPages));
      case 9:
        return sweep();
      default:
        return random_.one_in(2) ? store(some_page()) : load(some_page());
    }
  }

  VirtRange some_range(std::uint64_t longest) {
    const std::uint64_t n = random_.between(1, longest);
    const VirtAddr start = model_.bounds().start + to_bytes(PageCount{random_.below(kOwnPages - n + 1)});
    return {start, start + to_bytes(PageCount{n})};
  }
  VirtAddr some_page() { return some_range(1).start; }

  bool same(const char* what, KernReturn got, KernReturn expected) {
    if (got != expected) {
      stage_.fail("thread %u: %s says %d, expected %d", number_, what, static_cast<int>(got),
                  static_cast<int>(expected));
    }
    return got == expected && got == KernReturn::kSuccess;
  }
  void map() {
    VmMap::MapRequest request;
    const VirtRange range = some_range(24);
    request.hint = range.start;
    request.length = range.size();
    request.placement = random_.one_in(2) ? VmMap::MapRequest::Placement::kFixedReplace
                                          : VmMap::MapRequest::Placement::kFixedExclusive;
    VirtAddr at{0};
    const KernReturn expected = model_.expect_map(request, &at);
    if (same("map", stage_.map->map(request, &at), expected)) model_.map(request, at);
  }
  void remove() {
    const VirtRange range = some_range(16);
    if (same("remove", stage_.map->remove(range), KernReturn::kSuccess)) model_.remove(range);
  }
  void protect() {
    constexpr Prot kProts[] = {Prot::kNone, Prot::kRead, Prot::kReadWrite, Prot::kReadWrite};
    const VirtRange range = some_range(8);
    const Prot prot = kProts[random_.below(4)];
    const KernReturn expected = model_.expect_protect(range, prot);
    if (same("protect", stage_.map->protect(range, prot), expected)) model_.protect(range, prot);
  }
  void advise() {
    constexpr Advice kAdvice[] = {Advice::kDontNeed, Advice::kDiscard, Advice::kRandom, Advice::kNormal};
    const VirtRange range = some_range(16);
    const Advice advice = kAdvice[random_.below(4)];
    const KernReturn expected = model_.expect_advise(range, advice);
    if (same("advise", stage_.map->advise(range, advice), expected)) model_.advise(range, advice);
  }
  void remap() {
    const VirtRange from = some_range(12);
    const VirtAddr start = some_range(12).start;
    const VirtRange to{start, start + from.size()};
    const bool keep = random_.one_in(3);
    if (to.end > model_.bounds().end) return;  // it would reach into the next thread's range
    const KernReturn expected = model_.expect_remap(from, to, keep);
    if (same("remap", stage_.map->remap(from, to, keep), expected)) model_.remap(from, to, keep);
    // What has moved names its old place: name the new one.
    if (expected != KernReturn::kSuccess) return;
    for (VirtAddr page = to.start; page < to.end; page = page + ByteCount{kPageSize}) rename(page);
  }
  /// What was wired may have been unmapped since.
  void settle_wiring() {
    if (!has_wired_ || model_.wired_pages() != 0) return;
    const std::lock_guard guard(stage_.fork_or_wire);
    --stage_.wirers;
    has_wired_ = false;
  }
  void wire() {
    const VirtRange range = some_range(3);
    const std::lock_guard guard(stage_.fork_or_wire);
    if (model_.wired_pages() == 0) {
      if (!has_wired_) ++stage_.wirers;
      has_wired_ = true;
      const KernReturn expected = model_.expect_wire(range);
      if (same("wire", stage_.map->wire(range, WireKind::kUser), expected))
        model_.wire(range, WireKind::kUser);
    } else {
      const KernReturn expected = model_.expect_unwire(model_.bounds());
      const KernReturn got = stage_.map->unwire(model_.bounds(), WireKind::kUser);
      (void)same("unwire", got, expected);
      model_.unwire(model_.bounds(), WireKind::kUser);
      --stage_.wirers;
      has_wired_ = false;
    }
  }
  void sweep() {
    const VirtRange range = some_range(32);
    const bool writes = random_.one_in(2);
    for (VirtAddr page = range.start; page < range.end; page = page + ByteCount{kPageSize}) {
      writes ? store(page) : load(page);
    }
  }

  bool verdict(const char* what, VirtAddr page, FaultResult got, Access access) {
    const ModelPage* const expected_page = model_.find(page);
    const bool allowed = expected_page != nullptr &&
                         (access == Access::kWrite ? expected_page->writable() : expected_page->readable());
    const FaultResult expected = expected_page == nullptr ? FaultResult::kNotMapped
                                 : allowed                ? FaultResult::kResolved
                                                          : FaultResult::kProtection;
    if (got != expected) {
      stage_.fail("thread %u: %s at %llx: fault result %d, expected %d", number_, what,
                  static_cast<unsigned long long>(page.value()), static_cast<int>(got),
                  static_cast<int>(expected));
    }
    return got == expected && got == FaultResult::kResolved;
  }
  void compare(const char* what, VirtAddr page, const std::array<std::uint64_t, kWords>& seen) {
    const Content& content = *model_.find(page)->content;
    for (std::size_t i = 0; i < kWords; ++i) {
      if (seen[i] == content.words[i]) continue;
      stage_.fail("thread %u: %s at %llx: word %zu is %llx, expected %llx", number_, what,
                  static_cast<unsigned long long>(page.value()), i, static_cast<unsigned long long>(seen[i]),
                  static_cast<unsigned long long>(content.words[i]));
    }
  }
  void load(VirtAddr page) {
    std::array<std::uint64_t, kWords> seen{};
    const FaultResult got = stage_.touch(*stage_.map, page, Access::kRead, [&](std::byte* bytes) {
      for (std::size_t i = 0; i < kWords; ++i) std::memcpy(&seen[i], bytes + word_offset(i), 8);
    });
    if (verdict("load", page, got, Access::kRead)) compare("load", page, seen);
  }
  void store(VirtAddr page) {
    std::array<std::uint64_t, kWords> seen{};
    const std::size_t word = random_.below(kWords);
    const std::uint64_t value = value_of(number_, page, word, ++stores_);
    const FaultResult got = stage_.touch(*stage_.map, page, Access::kWrite, [&](std::byte* bytes) {
      for (std::size_t i = 0; i < kWords; ++i) std::memcpy(&seen[i], bytes + word_offset(i), 8);
      std::memcpy(bytes + word_offset(word), &value, 8);
    });
    if (!verdict("store", page, got, Access::kWrite)) return;
    compare("store", page, seen);
    model_.find(page)->content->words[word] = value;
  }
  void rename(VirtAddr page) {
    ModelPage* const model_page = model_.find(page);
    if (!model_page->writable()) return;
    std::array<std::uint64_t, kWords> words{};
    for (std::size_t i = 0; i < kWords; ++i) {
      if (model_page->content->words[i] != 0) words[i] = value_of(number_, page, i, ++stores_);
    }
    const FaultResult got = stage_.touch(*stage_.map, page, Access::kWrite, [&](std::byte* bytes) {
      for (std::size_t i = 0; i < kWords; ++i) std::memcpy(bytes + word_offset(i), &words[i], 8);
    });
    if (verdict("rename", page, got, Access::kWrite)) model_page->content->words = words;
  }

  Stage& stage_;
  unsigned number_;
  Random random_;
  ModelMap model_;
  std::uint64_t stores_ = 0;
  bool has_wired_ = false;  // is counted among the stage's wirers
};

// ---- the others
// --------------------------------------------------------------------------------------------------

/// Forks, and reads in the child: the common range as it is, elsewhere nothing that belongs to another place.
void check_fork(Stage& stage, Random& random) {
  std::unique_ptr<VmMap> child;
  {
    const std::lock_guard guard(stage.fork_or_wire);
    if (stage.wirers != 0) return;
    child = stage.map->fork();
  }
  if (child == nullptr) return stage.fail("fork failed");
  for (int i = 0; i < 10; ++i) stage.check_common(*child, random.below(kCommonPages));
  for (int i = 0; i < 40; ++i) {
    const auto owner = static_cast<unsigned>(random.below(kThreads));
    const std::uint64_t n = random.below(kOwnPages);
    const VirtAddr page = stage.own_range(owner).start + to_bytes(PageCount{n});
    const Access access = random.one_in(2) ? Access::kWrite : Access::kRead;
    std::array<std::uint64_t, kWords> seen{};
    const FaultResult got = stage.touch(*child, page, access, [&](std::byte* bytes) {
      for (std::size_t w = 0; w < kWords; ++w) {
        std::memcpy(&seen[w], bytes + word_offset(w), 8);
        const std::uint64_t poison = value_of(0x77, page, w, 7);  // the parent must never see it
        if (access == Access::kWrite) std::memcpy(bytes + word_offset(w), &poison, 8);
      }
    });
    if (got == FaultResult::kIoError || got == FaultResult::kNoMemory) {
      stage.fail("child: fault result %d", static_cast<int>(got));
    }
    if (got != FaultResult::kResolved || seen[0] >> 56 == 0x77) continue;
    for (std::size_t w = 0; w < kWords; ++w) {
      // A page that was moved keeps the name of its old place until its owner has renamed it; never another
      // owner's.
      if (seen[w] == 0 || seen[w] >> 56 == owner || belongs(seen[w], owner, page, w)) continue;
      stage.fail("child: page of thread %u holds %llx", owner, static_cast<unsigned long long>(seen[w]));
    }
  }
}

void disturb(Stage& stage, std::uint64_t seed) {
  Random random(seed ^ 0xd157);
  VmSystem& system = stage.engine.system();
  SoftMemory& memory = stage.engine.machine().memory();
  const std::uint64_t frames = memory.frame_limit().value();
  while (stage.running.load() != 0 && !stage.failed.load()) {
    switch (random.below(7)) {
      case 6: {
        const auto device = static_cast<unsigned>(random.below(2));
        const SwapoffResult result = stage.engine.swapoff(device);
        if (result != SwapoffResult::kOk && result != SwapoffResult::kBusy) stage.fail("swapoff failed");
        if (result == SwapoffResult::kOk && !stage.engine.swapon(device)) stage.fail("swapon failed");
        break;
      }
      case 0:
        (void)system.daemon().reclaim();
        break;
      case 1:
        (void)system.daemon().scan_active(random.between(1, 30));
        break;
      case 2:
        static_cast<SoftPmap&>(stage.map->pmap()).drop_if([&](const SoftMapping&) {
          return random.one_in(3);
        });
        break;
      case 3:
        memory.set_budget(PageCount{random.between(frames * 3 / 4, frames)});
        (void)system.daemon().give_back(memory.surplus_wanted());
        break;
      case 4:
        (void)system.grow(PageCount{random.between(1, 10)});
        stage.engine.machine().clock().advance(Nanoseconds{30'000'000'000});
        system.daemon().tick();
        break;
      default:
        check_fork(stage, random);
        break;
    }
    std::this_thread::yield();
  }
}

void run_seed(std::uint64_t seed, unsigned steps) {
  SCOPED_TRACE(testing::Message() << "ENCHILADA_SEED=" << seed << describe(options_of(seed).modes));
  Stage stage(seed);
  stage.fill_common();
  std::vector<std::unique_ptr<Owner>> owners;
  for (unsigned t = 0; t < kThreads; ++t) owners.push_back(std::make_unique<Owner>(stage, t, seed));
  std::vector<std::thread> threads;
  for (auto& owner : owners) threads.emplace_back([&owner, steps] { owner->run(steps); });
  threads.emplace_back([&] { disturb(stage, seed); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(stage.failed.load());  // with the seed, which threads do not say
  stage.validate();
  if (stage.failed.load()) return;
  for (auto& owner : owners) owner->check_all();
  for (std::uint64_t n = 0; n < kCommonPages; ++n) stage.check_common(*stage.map, n);
  stage.map.reset();
  stage.validate();
  EXPECT_EQ(stage.engine.system().objects().live(), 0u);
  stage.engine.pager().finish_writes();
  EXPECT_EQ(stage.engine.space().used(), stage.engine.pager().given_up());
  EXPECT_EQ(stage.engine.system().free_frames().free_count(), stage.engine.system().free_frames().granted());
}

TEST(Model, ThreadsInOneAddressSpace) {
  if (const auto seed = replayed_seed()) return run_seed(*seed, kSteps);
  const std::uint64_t seeds = seed_count(40);
  const std::uint64_t first = first_seed();
  for (std::uint64_t seed = first; seed < first + seeds && !HasFailure(); ++seed) run_seed(seed, kSteps);
}

}  // namespace
}  // namespace enchilada::model
