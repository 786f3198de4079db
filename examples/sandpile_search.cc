// A search whose states are large and whose moves change little: which grains to drop on a sandpile, one
// after the other, to set off the most topplings.
//
// Beam search: each of the best `beam` piles tries `moves` places; the best of all results go on. With
// regions a try is Region::fork() of its parent and all tries live at once, whatever they weigh; the other
// side copies the pile for each try. Both must come to the same pile.
#include <algorithm>
#include <memory>
#include <vector>

#include "example.h"

namespace {

using example::must;

struct Search {
  std::uint64_t side;
  std::uint64_t beam;
  std::uint64_t moves;
  std::uint64_t depth;
  [[nodiscard]] std::uint64_t bytes() const { return side * side; }
};

/// Drops one grain at the place and lets the pile come to rest: a place with four grains gives one to each
/// neighbour; what falls off the edge is gone. How many times places have toppled.
std::uint64_t drop(std::uint8_t* pile, std::uint64_t side, std::uint64_t place,
                   std::vector<std::uint64_t>& unstable) {
  std::uint64_t topplings = 0;
  const auto add = [&](std::uint64_t at) {
    if (++pile[at] == 4) unstable.push_back(at);
  };
  add(place);
  while (!unstable.empty()) {
    const std::uint64_t at = unstable.back();
    unstable.pop_back();
    ++topplings;
    pile[at] = static_cast<std::uint8_t>(pile[at] - 4);
    if (pile[at] >= 4) unstable.push_back(at);
    if (at % side != 0) add(at - 1);
    if (at % side != side - 1) add(at + 1);
    if (at >= side) add(at - side);
    if (at + side < side * side) add(at + side);
  }
  return topplings;
}

/// A pile at rest, 1.9 grains high on average. At 2.125 (the sandpile's critical height) a drop would move
/// all of it.
void fill(std::uint8_t* pile, const Search& search) {
  example::Random random(3);
  for (std::uint64_t i = 0; i < search.bytes(); ++i) {
    const std::uint64_t roll = random.below(16);
    pile[i] = static_cast<std::uint8_t>(roll < 4 ? 3 : roll < 10 ? 2 : 1);
  }
}

std::uint64_t place_of(const Search& search, std::uint64_t level, std::uint64_t move) {
  return example::mix(level << 32 | move) % search.bytes();
}

std::uint64_t digest(const std::uint8_t* pile, const Search& search) {
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < search.bytes(); ++i) sum = sum * 31 + pile[i];
  return sum;
}

/// A pile in a region; a copy of it is a fork.
struct ForkedPile {
  enchilada::Region region;
  [[nodiscard]] std::uint8_t* data() const { return reinterpret_cast<std::uint8_t*>(region.data()); }
  [[nodiscard]] ForkedPile copy(const Search&) const { return {must(region.fork())}; }
};

/// A pile in memory of its own.
struct CopiedPile {
  std::unique_ptr<std::uint8_t[]> bytes;
  [[nodiscard]] std::uint8_t* data() const { return bytes.get(); }
  [[nodiscard]] CopiedPile copy(const Search& search) const {
    CopiedPile other{std::unique_ptr<std::uint8_t[]>(new std::uint8_t[search.bytes()])};
    std::memcpy(other.bytes.get(), bytes.get(), search.bytes());
    return other;
  }
};

struct Outcome {
  std::uint64_t topplings = 0;
  std::uint64_t digest = 0;  // of the best pile
  double seconds = 0;
};

template <class Pile>
Outcome run(const Search& search, Pile first) {
  struct State {
    Pile pile;
    std::uint64_t score;
  };
  std::vector<std::uint64_t> unstable;
  std::vector<State> beam;
  fill(first.data(), search);
  const double start = example::now();
  beam.push_back({std::move(first), 0});
  for (std::uint64_t level = 0; level < search.depth; ++level) {
    std::vector<State> tries;
    for (const State& parent : beam) {
      for (std::uint64_t move = 0; move < search.moves; ++move) {
        State child{parent.pile.copy(search), parent.score};
        // Many drops make a move, all near one place: an avalanche needs some encouragement.
        const std::uint64_t place = place_of(search, level, move);
        for (int grain = 0; grain < 64; ++grain)
          child.score += drop(child.pile.data(), search.side, place, unstable);
        tries.push_back(std::move(child));
      }
    }
    const auto better = [](const State& a, const State& b) { return a.score > b.score; };
    std::stable_sort(tries.begin(), tries.end(), better);
    while (tries.size() > search.beam) tries.pop_back();
    beam = std::move(tries);
  }
  const double seconds = example::now() - start;
  return {beam.front().score, digest(beam.front().pile.data(), search), seconds};
}

}  // namespace

int main(int argc, char** argv) {
  example::Options options(argc, argv, 1);
  Search search{};
  search.side = options.size("--side", 4096);
  search.beam = options.size("--beam", 6);
  search.moves = options.size("--moves", 8);
  search.depth = options.size("--depth", 12);
  options.done();
  if (search.side < 64 || search.side > 65536) example::fail("--side: from 64 to 65536", 2);

  const std::uint64_t ram = search.bytes() * 2 + (std::uint64_t{64} << 20);
  auto vm = must(enchilada::Vm::create({.ram_bytes = ram}));
  const Outcome forked = run(search, ForkedPile{must(vm.map(search.bytes()))});
  const Outcome copied =
      run(search, CopiedPile{std::unique_ptr<std::uint8_t[]>(new std::uint8_t[search.bytes()])});

  const std::uint64_t at_once = search.beam * (search.moves + 1);
  std::printf("copies    %8.3f s, %llu MiB of piles at once\n", copied.seconds,
              static_cast<unsigned long long>(at_once * search.bytes() >> 20));
  std::printf("forks     %8.3f s, in %llu MiB of RAM\n", forked.seconds,
              static_cast<unsigned long long>(ram >> 20));
  if (forked.topplings != copied.topplings || forked.digest != copied.digest)
    example::fail("the two sides disagree");
  std::printf("forks are %.1f times as fast; best: %llu topplings\n", copied.seconds / forked.seconds,
              static_cast<unsigned long long>(forked.topplings));
  return 0;
}
