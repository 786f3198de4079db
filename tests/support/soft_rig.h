// SoftRig: a soft engine for step-by-step tests: processes that load and store bytes, files, and a look at
// objects. Invariant: check() walks the whole engine and every map made here; the destructor checks that
// nothing is left.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "machine/soft_engine.h"
#include "pager/memory_file.h"
#include "pager/vm_file.h"
#include "validate/validate.h"
#include "vm/vm_pageout.h"

namespace enchilada::test {

inline constexpr PageCount operator""_pages(unsigned long long n) {
  return PageCount{n};
}

class SoftRig {
 public:
  /// One process: an address space that the rig knows.
  using Process = VmMap;
  static constexpr VirtAddr kBase{std::uint64_t{1} << 20};

  explicit SoftRig(const SoftEngineOptions& options = {}) : engine(options) {}
  ~SoftRig() { shut_down(); }
  /// All processes end and all files are closed: before the files' stores go.
  void shut_down() {
    files_.clear();
    processes_.clear();
    EXPECT_EQ(engine.system().objects().live(), 0u);
    check();
  }

  Process& spawn() { return keep(engine.create_map(PageCount{1 << 16})); }
  Process& fork(Process& parent) { return keep(parent.fork()); }
  void exit(Process& process) {
    exit_unchecked(process);
    check();
  }
  void exit_unchecked(Process& process) {
    std::erase_if(processes_, [&](const auto& p) { return p.get() == &process; });
  }
  /// What exec does: all memory is replaced.
  void exec(Process& process) {
    EXPECT_EQ(process.remove(process.bounds()), KernReturn::kSuccess);
    check();
  }

  VirtAddr map(Process& p, VmMap::MapRequest request) {
    VirtAddr at{0};
    EXPECT_EQ(p.map(request, &at), KernReturn::kSuccess);
    return at;
  }
  VirtAddr map_anonymous(Process& p, PageCount pages, Inherit inherit = Inherit::kCopy) {
    VmMap::MapRequest request;
    request.hint = kBase;
    request.length = to_bytes(pages);
    request.inherit = inherit;
    return map(p, request);
  }
  VmFile& file(MemoryFile& store) {
    files_.push_back(VmFile::open(engine.system(), engine.file_pager(), store));
    return *files_.back();
  }
  void close(VmFile& file) {
    std::erase_if(files_, [&](const auto& f) { return f.get() == &file; });
  }

  FaultResult write(Process& p, VirtAddr va, std::uint64_t value) {
    return engine.machine().store(p, va, std::as_bytes(std::span(&value, 1))).result;
  }
  std::uint64_t read(Process& p, VirtAddr va) {
    std::uint64_t value = 0;
    const AccessOutcome got = engine.machine().load(p, va, std::as_writable_bytes(std::span(&value, 1)));
    EXPECT_EQ(got.result, FaultResult::kResolved) << std::hex << va.value();
    return value;
  }
  FaultResult try_read(Process& p, VirtAddr va) {
    std::byte b;
    return engine.machine().load(p, va, {&b, 1}).result;
  }

  /// The entry's object at an address; null: none yet.
  static VmObject* object_at(Process& p, VirtAddr va) {
    VmObject* found = nullptr;
    p.for_each_entry([&](const VmMap::EntryView& e) {
      if (e.range.contains(va)) found = e.object;
    });
    return found;
  }
  unsigned depth_at(Process& p, VirtAddr va) {
    VmObject* const object = object_at(p, va);
    return object == nullptr ? 0 : engine.system().objects().depth(*object);
  }
  std::uint64_t frames_in_use() {
    const VmCounters& c = engine.machine().counters();
    return c.granted.load() - c.free_count.load();
  }
  VmCounters& counters() { return engine.machine().counters(); }
  std::size_t objects() { return engine.system().objects().live(); }
  /// Pages out what an object has of a range.
  void page_out(VmObject& object, PageIndex first, PageCount count) {
    engine.system().daemon().pageout_object(object, first, count);
  }

  void check() {
    std::vector<VmMap*> maps;
    for (const auto& p : processes_) maps.push_back(p.get());
    const Problems problems = find_problems({.system = engine.system(),
                                             .maps = maps,
                                             .pmaps = &engine.machine().pmaps(),
                                             .pager = &engine.pager(),
                                             .space = &engine.space()});
    ASSERT_TRUE(problems.empty()) << to_text(problems);
  }

  SoftEngine engine;

 private:
  Process& keep(std::unique_ptr<VmMap> map) {
    EXPECT_NE(map, nullptr);
    processes_.push_back(std::move(map));
    return *processes_.back();
  }
  std::vector<std::unique_ptr<VmFile>> files_;
  std::vector<std::unique_ptr<VmMap>> processes_;
};

}  // namespace enchilada::test
