// libFuzzer: a script of operations on an allocator of swap blocks, against a plain bitmap. First bytes:
// size, boundary and which allocator; then operations.
#include <cstdlib>
#include <vector>

#include "base/check.h"
#include "swap/swap_allocator.h"

namespace {

using enchilada::Blist;
using enchilada::Blist1999;
using enchilada::BlockRun;
using enchilada::PageCount;
using enchilada::SwapBlock;
using enchilada::SwapList3x;
using enchilada::block_storage::run_at;

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  [[nodiscard]] bool empty() const { return size_ == 0; }
  std::uint64_t byte() {
    if (size_ == 0) return 0;
    --size_;
    return *data_++;
  }
  std::uint64_t word() {
    const std::uint64_t low = byte();
    return low | byte() << 8;
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

struct Model {
  std::vector<bool> free;
  std::uint64_t boundary;

  [[nodiscard]] std::uint64_t longest() const {
    std::uint64_t best = 0;
    std::uint64_t run = 0;
    for (std::size_t b = 0; b < free.size(); ++b) {
      if (boundary != 0 && b % boundary == 0) run = 0;
      run = free[b] ? run + 1 : 0;
      best = run > best ? run : best;
    }
    return best;
  }
  /// Sets [first, first+count); returns how many had been free.
  std::uint64_t set(std::uint64_t first, std::uint64_t count, bool value) {
    std::uint64_t were = 0;
    for (std::uint64_t b = first; b < first + count; ++b) {
      were += free[b] ? 1 : 0;
      free[b] = value;
    }
    return were;
  }
};

template <class A>
void allocate(A& list, Model& model, std::uint64_t min, std::uint64_t max) {
  const BlockRun run = list.allocate(PageCount{min}, PageCount{max});
  if (run.empty()) {
    CHECK(model.longest() < min, min);
    return;
  }
  const std::uint64_t first = run.first.value();
  const std::uint64_t count = run.count.value();
  CHECK(count >= min && count <= max && first + count <= model.free.size(), first, count);
  CHECK(model.set(first, count, false) == count, first, count);
  CHECK(model.boundary == 0 || first / model.boundary == (first + count - 1) / model.boundary, first, count);
}

template <class A>
void release(A& list, Model& model, std::uint64_t first, std::uint64_t count) {
  bool legal = first + count <= model.free.size();
  for (std::uint64_t b = first; legal && b < first + count; ++b) legal = !model.free[b];
  CHECK(list.free(run_at(first, count)) == legal, first, count);
  if (legal) model.set(first, count, true);
}

template <class A>
void step(A& list, Model& model, Input& in) {
  const std::uint64_t op = in.byte();
  const std::uint64_t first = in.word() % model.free.size();
  const std::uint64_t count = 1 + (op & 0x80 ? in.word() : in.byte() % 80);
  switch (op % 4) {
    case 0:
      return allocate(list, model, count, count);
    case 1:
      return allocate(list, model, 1 + first % count, count);
    case 2:
      return release(list, model, first, count);
    default: {
      const std::uint64_t fits = count < model.free.size() - first ? count : model.free.size() - first;
      CHECK(list.fill(run_at(first, fits)).value() == model.set(first, fits, false));
    }
  }
}

/// Storage in which nothing gets lost.
template <class A>
std::size_t bytes_for(std::uint64_t blocks) {
  return A::required_bytes(PageCount{blocks});
}
template <>
std::size_t bytes_for<SwapList3x>(std::uint64_t blocks) {
  return SwapList3x::bytes_with_nodes(blocks / 2 + 1);
}

template <class A>
void play(Input& in, Model& model, std::uint64_t boundary, bool start_full) {
  const std::uint64_t blocks = model.free.size();
  const std::size_t bytes = bytes_for<A>(blocks);
  auto* storage = static_cast<std::byte*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64));
  CHECK(storage != nullptr);
  std::fill_n(storage, bytes, std::byte{0});
  A list = A::create({storage, bytes}, PageCount{blocks}, PageCount{boundary});
  if (start_full) CHECK(list.fill(run_at(0, blocks)).value() == model.set(0, blocks, false));
  for (int steps = 0; steps < 400 && !in.empty(); ++steps) step(list, model, in);
  CHECK(list.verify());
  std::uint64_t free = 0;
  for (std::uint64_t b = 0; b < blocks; ++b) {
    free += model.free[b] ? 1 : 0;
    CHECK(list.is_free(SwapBlock{static_cast<std::uint32_t>(b)}) == model.free[b], b);
  }
  CHECK(list.available().value() == free);
  std::free(storage);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  const std::uint64_t blocks = 1 + in.word() % 9000;
  const std::uint64_t shift = in.byte() % 16;
  const std::uint64_t boundary = shift < 11 ? std::uint64_t{1} << shift : 0;
  Model model{std::vector<bool>(blocks, true), boundary};
  const std::uint64_t choice = in.byte();
  const bool start_full = (choice & 1) == 0;
  switch (choice / 2 % 3) {
    case 0:
      play<Blist>(in, model, boundary, start_full);
      break;
    case 1:
      // Nothing crosses its leaves.
      model.boundary = boundary == 0 ? Blist1999::kLeafBlocks : std::min(boundary, Blist1999::kLeafBlocks);
      play<Blist1999>(in, model, boundary, start_full);
      break;
    default:
      play<SwapList3x>(in, model, boundary, start_full);
  }
  return 0;
}
