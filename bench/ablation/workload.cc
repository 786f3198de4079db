// The workloads. Sizes are in pages of a machine with kFrames frames.
#include "workload.h"

#include <array>
#include <cstdio>
#include <vector>

#include "machine/program_image.h"

namespace enchilada::ablation {

Stage::Stage(const VmModes& modes)
    : engine_(
          {.machine = {.memory = {.frames = PageCount{kFrames}}, .pmap = {.table_pages = PageCount{4096}}},
           .swap_pages = {1 << 15},
           .bounce_buffers = 4,
           .modes = modes}) {}

Stage::Program Stage::start(std::uint64_t pages) {
  Program p{engine_.create_map(PageCount{std::uint64_t{1} << 20}), VirtAddr{0}};
  if (p.map == nullptr ||
      p.map->map({.length = ByteCount{pages * kPageSize}}, &p.base) != KernReturn::kSuccess) {
    std::abort();
  }
  return p;
}

Stage::Program Stage::fork(Program& parent) {
  Program child{parent.map->fork(), parent.base};
  if (child.map == nullptr) std::abort();
  return child;
}

VirtRange Stage::range(const Program& p, std::uint64_t first, std::uint64_t pages) {
  const VirtAddr start = p.base + ByteCount{first * kPageSize};
  return {start, start + ByteCount{pages * kPageSize}};
}

void Stage::access(Program& p, std::uint64_t i, Access access) {
  const FaultResult result =
      engine_.machine().touch(*p.map, p.base + ByteCount{i * kPageSize}, access, [&](std::byte* byte) {
        if (access == Access::kWrite) *byte = static_cast<std::byte>(static_cast<unsigned>(*byte) + 1);
      });
  if (result != FaultResult::kResolved) {
    std::fprintf(stderr, "access of page %llu failed: %d\n", static_cast<unsigned long long>(i),
                 static_cast<int>(result));
    std::abort();
  }
}

void Stage::write_all(Program& p, std::uint64_t first, std::uint64_t pages) {
  for (std::uint64_t i = first; i < first + pages; ++i) write(p, i);
}

void Stage::think() {
  while (engine_.system().idle().value() != 0) {
  }
}

void Stage::read_all(Program& p, std::uint64_t first, std::uint64_t pages) {
  for (std::uint64_t i = first; i < first + pages; ++i) read(p, i);
}

namespace {

/// Twice memory, written once and read three times from end to end.
void sequential(Stage& s) {
  auto p = s.start(2 * kFrames);
  s.write_all(p, 0, 2 * kFrames);
  for (int pass = 0; pass < 3; ++pass) s.read_all(p, 0, 2 * kFrames);
}

/// One and a half memories, anywhere; a third of the accesses are writes.
void uniform(Stage& s) {
  constexpr std::uint64_t kPages = kFrames * 3 / 2;
  auto p = s.start(kPages);
  s.write_all(p, 0, kPages);
  for (int i = 0; i < 20000; ++i) {
    const std::uint64_t at = s.random(kPages);
    i % 3 == 0 ? s.write(p, at) : s.read(p, at);
  }
}

/// Three memories; nine accesses in ten go to a fifth of the pages, which lie scattered.
void skewed(Stage& s) {
  constexpr std::uint64_t kPages = kFrames * 3;
  auto p = s.start(kPages);
  s.write_all(p, 0, kPages);
  for (int i = 0; i < 40000; ++i) {
    const std::uint64_t group = s.random(kPages / 5);
    const std::uint64_t at = s.random(10) == 0 ? s.random(kPages) : group * 5 + group % 5;
    i % 4 == 0 ? s.write(p, at) : s.read(p, at);
  }
}

/// A working set of half a memory in use while a stream four memories long is written beside it.
void stream_beside_work(Stage& s) {
  constexpr std::uint64_t kWork = kFrames / 2;
  auto p = s.start(kWork + 4 * kFrames);
  s.write_all(p, 0, kWork);
  for (std::uint64_t i = 0; i < 4 * kFrames; ++i) {
    s.write(p, kWork + i);
    for (int k = 0; k < 4; ++k) s.read(p, s.random(kWork));
  }
}

/// A server forks for each request; the child writes its stack and some data, the parent its book-keeping.
void fork_server(Stage& s) {
  constexpr std::uint64_t kPages = 256;
  auto parent = s.start(kPages);
  s.write_all(parent, 0, kPages);
  for (int request = 0; request < 60; ++request) {
    auto child = Stage::fork(parent);
    for (std::uint64_t i = 0; i < 4; ++i) s.write(parent, i);
    for (std::uint64_t i = 0; i < 3; ++i) s.write(child, kPages - 1 - i);  // stack
    for (std::uint64_t i = 0; i < 6; ++i) s.write(child, 32 + i);          // always the same data
    s.write(child, s.random(kPages));
    s.read_all(child, 64, 64);
  }
}

/// A shell: fork, and the child execs at once, after a few writes; pipelines of four.
void fork_exec(Stage& s) {
  constexpr std::uint64_t kPages = 128;
  auto shell = s.start(kPages);
  s.write_all(shell, 0, kPages);
  for (int line = 0; line < 25; ++line) {
    for (int stage = 0; stage < 4; ++stage) {
      auto child = Stage::fork(shell);
      s.write(child, kPages - 1);
      s.write(shell, kPages - 1);
      s.write(shell, kPages - 2);
      child = s.start(64);  // the new image: text, data, stack, all zero-fill here
      s.write_all(child, 0, 12);
      s.write(child, 63);
    }
  }
}

/// Forks that fork: four generations, everybody writes a part, the eldest go first.
void cascade(Stage& s) {
  constexpr std::uint64_t kPages = 200;
  for (int round = 0; round < 6; ++round) {
    std::vector<Stage::Program> family;
    family.push_back(s.start(kPages));
    s.write_all(family.back(), 0, kPages);
    for (int generation = 0; generation < 4; ++generation) {
      family.push_back(Stage::fork(family.back()));
      for (int i = 0; i < 40; ++i) s.write(family.back(), s.random(kPages));
      for (int i = 0; i < 40; ++i) s.write(family[family.size() - 2], s.random(kPages));
    }
    while (!family.empty()) {
      for (auto& p : family) s.read_all(p, 0, kPages);
      family.erase(family.begin());
    }
  }
}

/// Eight programs share a memory's worth of pages, each using most of it, while a ninth needs room.
void shared_pages(Stage& s) {
  constexpr std::uint64_t kPages = kFrames * 3 / 4;
  auto first = s.start(kPages);
  if (first.map->inherit(Stage::range(first, 0, kPages), Inherit::kShare) != KernReturn::kSuccess)
    std::abort();
  s.write_all(first, 0, kPages);
  std::vector<Stage::Program> all;
  for (int i = 0; i < 7; ++i) all.push_back(Stage::fork(first));
  auto other = s.start(kFrames);
  for (int round = 0; round < 4; ++round) {
    for (auto& p : all) {
      for (std::uint64_t i = 0; i < kPages; i += 1 + s.random(3)) s.read(p, i);
    }
    s.write_all(other, static_cast<std::uint64_t>(round) * (kFrames / 4), kFrames / 4);
  }
}

/// A collector: memory protected and unprotected in pieces, dropped and used again.
void map_churn(Stage& s) {
  constexpr std::uint64_t kPages = 512;
  auto p = s.start(kPages);
  s.write_all(p, 0, kPages);
  for (int cycle = 0; cycle < 20; ++cycle) {
    for (std::uint64_t i = 0; i < kPages; i += 2) {
      if (p.map->protect(Stage::range(p, i, 1), Prot::kRead) != KernReturn::kSuccess) std::abort();
    }
    s.read_all(p, 0, kPages);
    if (p.map->protect(Stage::range(p, 0, kPages), Prot::kReadWrite) != KernReturn::kSuccess) std::abort();
    if (p.map->advise(Stage::range(p, 128, 128), Advice::kDiscard) != KernReturn::kSuccess) std::abort();
    for (int i = 0; i < 300; ++i) s.write(p, s.random(kPages));
  }
}

/// Programs that start, use a little zero-fill memory here and there, think, and end.
void short_lived(Stage& s) {
  for (int run = 0; run < 80; ++run) {
    auto p = s.start(400);
    for (int i = 0; i < 60; ++i) s.write(p, s.random(400));
    s.write_all(p, 300, 40);
    p.map.reset();
    s.think();
  }
}

/// The article's ls(1), run again and again: text and libraries are in memory from the second run on.
void ls_again(Stage& s) {
  ProgramImage ls(s.engine(), {});
  for (int run = 0; run < 40; ++run) {
    auto process = ls.exec();
    if (process == nullptr || !process->run()) std::abort();
    process.reset();
    s.think();
  }
}

constexpr std::array kAll = {
    Workload{"sequential", "2x memory, written, then read three times in order", sequential},
    Workload{"uniform", "1.5x memory, uniformly random, a third writes", uniform},
    Workload{"skewed", "3x memory, 90 % of accesses on 20 % of the pages", skewed},
    Workload{"stream", "a stream of 4x memory beside a working set of half", stream_beside_work},
    Workload{"fork-server", "a fork for each request; both sides write a few pages", fork_server},
    Workload{"fork-exec", "a shell: fork, few writes, exec", fork_exec},
    Workload{"cascade", "four generations of forks, everybody writes", cascade},
    Workload{"shared", "8 programs share most of memory, another needs room", shared_pages},
    Workload{"map-churn", "mprotect page by page, discard, write again", map_churn},
    Workload{"ls-again", "a program started 40 times (article, section 5)", ls_again},
    Workload{"short-lived", "programs that start, touch zero-fill memory, and end", short_lived},
};

}  // namespace

std::span<const Workload> all_workloads() {
  return kAll;
}

}  // namespace enchilada::ablation
