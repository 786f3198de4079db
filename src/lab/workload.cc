// Drawing calls at random. Invariants: see workload.h.
#include "lab/workload.h"

#include <algorithm>

namespace enchilada::lab {

VirtRange RandomWorkload::some_range() {
  const std::uint64_t longest = random_.one_in(4) ? shape_.pages : 8;
  const std::uint64_t length = 1 + random_.below(longest);
  const std::uint64_t first = random_.below(shape_.pages - std::min(length, shape_.pages) + 1);
  const VirtAddr start = kBase + to_bytes(PageCount{first});
  return {start, start + to_bytes(PageCount{std::min(length, shape_.pages - first)})};
}

Prot RandomWorkload::some_prot() {
  constexpr std::array<Prot, 4> kProts = {Prot::kReadWrite, Prot::kReadWrite, Prot::kRead, Prot::kNone};
  return kProts[random_.below(kProts.size())];
}

Step RandomWorkload::next() {
  // Of 100 steps, how many are which; accesses first.
  struct Weight {
    Call call;
    std::uint64_t share;
  };
  constexpr std::array<Weight, 12> kWeights = {{{Call::kRead, 25},
                                                {Call::kWrite, 30},
                                                {Call::kMap, 12},
                                                {Call::kUnmap, 5},
                                                {Call::kProtect, 7},
                                                {Call::kDiscard, 3},
                                                {Call::kRemap, 4},
                                                {Call::kFork, 5},
                                                {Call::kExec, 1},
                                                {Call::kExit, 3},
                                                {Call::kSpawn, 1},
                                                {Call::kReclaim, 4}}};
  Step step;
  std::uint64_t drawn = random_.below(100);
  for (const Weight& weight : kWeights) {
    step.call = weight.call;
    if (drawn < weight.share) break;
    drawn -= weight.share;
  }
  const bool full = processes_.size() >= shape_.processes;
  if (processes_.empty()) step.call = Call::kSpawn;
  if (full && (step.call == Call::kFork || step.call == Call::kSpawn)) step.call = Call::kExit;
  if (step.call == Call::kSpawn) return step;
  const std::size_t at = random_.below(processes_.size());
  step.process = processes_[at];
  step.range = some_range();
  step.to = some_range().start;
  step.prot = some_prot();
  step.value = random_.bits();
  if (random_.one_in(2) && step.call == Call::kMap) {
    step.file = FileId{static_cast<std::uint32_t>(random_.below(shape_.files))};
    step.shared = random_.one_in(2);
    const std::uint64_t pages = std::min(to_pages(step.range.size()).value(), shape_.file_pages);
    step.range.end = step.range.start + to_bytes(PageCount{pages});
    step.offset = PageIndex{random_.below(shape_.file_pages - pages + 1)};
  }
  if (step.call == Call::kRead || step.call == Call::kWrite) {
    const std::uint64_t words = kPageSize / sizeof(std::uint64_t);
    step.range.start = step.range.start + ByteCount{8 * (random_.one_in(4) ? random_.below(words) : 3)};
  }
  if (step.call == Call::kReclaim) step.value = 1 + step.value % 24;
  if (step.call == Call::kExit) processes_.erase(processes_.begin() + static_cast<std::ptrdiff_t>(at));
  return step;
}

}  // namespace enchilada::lab
