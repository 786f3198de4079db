// The teaching run: a tiny random program, call by call, with the events that each call caused.
#include <fmt/format.h>

#include <array>

#include "lab/experiments/report.h"
#include "lab/experiments/rig.h"

namespace enchilada::lab {
namespace {

constexpr std::array<std::string_view, 12> kCallNames = {"read",    "write",   "map",   "unmap",
                                                         "protect", "discard", "remap", "fork",
                                                         "exec",    "exit",    "spawn", "reclaim"};

std::string pages_of(VirtRange range) {
  const auto number = [](VirtAddr va) { return (va.value() - RandomWorkload::kBase.value()) >> kPageShift; };
  return fmt::format("pages {}-{}", number(range.start), number(page_ceil(range.end)) - 1);
}

std::string describe(const Step& step) {
  std::string text{kCallNames[static_cast<std::size_t>(step.call)]};
  if (step.call == Call::kReclaim) return text + fmt::format(" {} frames", step.value);
  if (step.call == Call::kSpawn) return text;
  text += fmt::format(" process {}", step.process.value());
  if (step.call == Call::kFork || step.call == Call::kExec || step.call == Call::kExit) return text;
  if (step.call == Call::kRead || step.call == Call::kWrite) {
    return text +
           fmt::format(" page {}", (step.range.start.value() - RandomWorkload::kBase.value()) >> kPageShift);
  }
  text += " " + pages_of(step.range);
  if (step.file.has_value()) {
    text += fmt::format(" of file {} from {}{}", step.file->value(), step.offset.value(),
                        step.shared ? ", shared" : "");
  }
  return text;
}

bool apply(VmDesign& design, const Step& step, RandomWorkload* workload) {
  const auto nothing = [](std::byte*) {};
  switch (step.call) {
    case Call::kRead:
      return design.access(step.process, step.range.start, Access::kRead, nothing);
    case Call::kWrite:
      return design.access(step.process, step.range.start, Access::kWrite, nothing);
    case Call::kMap:
      return design.map(step.process, {.at = step.range.start,
                                       .pages = to_pages(step.range.size()),
                                       .prot = step.prot,
                                       .file = step.file,
                                       .offset = step.offset,
                                       .shared = step.shared});
    case Call::kUnmap:
      return design.unmap(step.process, step.range);
    case Call::kProtect:
      return design.protect(step.process, step.range, step.prot);
    case Call::kDiscard:
      return design.discard(step.process, step.range);
    case Call::kRemap:
      return design.remap(step.process, step.range, step.to);
    case Call::kFork:
      return workload->made(design.fork(step.process)), true;
    case Call::kExec:
      return design.exec(step.process), true;
    case Call::kExit:
      return design.exit(step.process), true;
    case Call::kSpawn:
      return workload->made(design.spawn()), true;
    case Call::kReclaim:
      return design.reclaim(PageCount{step.value}), true;
  }
  return false;
}

}  // namespace

std::string explain(std::string_view design, std::uint64_t seed, unsigned steps) {
  const WorkloadShape shape{.pages = 16, .files = 1, .file_pages = 12, .processes = 4};
  Rig rig(design, {.frames = PageCount{64}});
  (void)rig.design().create_file(PageCount{shape.file_pages});
  RandomWorkload workload(seed, shape);
  std::string text;
  for (unsigned i = 0; i < steps; ++i) {
    const Step step = workload.next();
    rig.begin();
    const bool done = apply(rig.design(), step, &workload);
    text += fmt::format("{:>3}  {}{}\n", i + 1, describe(step), done ? "" : ": refused");
    for (const auto& [name, value] : rig.end(1)) {
      if (value != 0 && name != "accesses") text += fmt::format("       {} {:.0f}\n", name, value);
    }
  }
  return text;
}

}  // namespace enchilada::lab
