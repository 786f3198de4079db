// ProgramImage: a program as exec(2) lays it out: text and data of its file, BSS, heap, stack, and the text
// and data of shared libraries; and what a short run of it touches. The article's ls(1) (section 5).
//
// Text is mapped for reading, data for private writing, both from the file's one object, so what an earlier
// run read is in memory; BSS, heap and stack are zero-fill memory. Invariant: the image outlives its
// processes; everything is deterministic, so that faults can be counted exactly.
#pragma once

#include <memory>
#include <vector>

#include "machine/soft_engine.h"
#include "pager/memory_file.h"
#include "pager/vm_file.h"

namespace enchilada {

/// Sizes, and how many pages of each part a run touches (from its start on; of the stack: from its top down).
struct SegmentSize {
  std::uint64_t pages = 0;
  std::uint64_t used = 0;
};
struct ProgramLayout {
  SegmentSize text{24, 20};  // read
  SegmentSize data{4, 3};    // written: copied from the file
  SegmentSize bss{16, 3};    // written
  SegmentSize heap{64, 8};   // written
  SegmentSize stack{32, 2};  // written
  unsigned libraries = 2;
  SegmentSize library_text{60, 30};  // read
  SegmentSize library_data{3, 2};    // written
};

class ProgramImage {
 public:
  ProgramImage(SoftEngine& engine, const ProgramLayout& layout);

  /// One process of the program.
  class Process {
   public:
    /// What a short run does. False: an access failed.
    [[nodiscard]] bool run();
    [[nodiscard]] VmMap& map() { return *map_; }

   private:
    friend class ProgramImage;
    struct Part {
      VirtAddr first;
      std::uint64_t used;
      Access access;
    };
    Process(SoftEngine& engine, std::unique_ptr<VmMap> map) : engine_(engine), map_(std::move(map)) {}
    SoftEngine& engine_;
    std::unique_ptr<VmMap> map_;
    std::vector<Part> parts_;
  };
  /// execve(2): a fresh address space with all parts mapped. Null: resources.
  [[nodiscard]] std::unique_ptr<Process> exec();

  /// Pages that one run touches in all, and those of them that it writes.
  [[nodiscard]] std::uint64_t touched() const;
  [[nodiscard]] std::uint64_t written() const;

 private:
  struct File {
    File(SoftEngine& engine, const SegmentSize& text, const SegmentSize& data);
    MemoryFile store;
    std::unique_ptr<VmFile> file;
    SegmentSize text;
    SegmentSize data;
  };
  bool map_file(Process& process, File& file);
  bool map_memory(Process& process, const SegmentSize& size, bool from_top, VirtRange* hot);

  SoftEngine& engine_;
  ProgramLayout layout_;
  std::vector<std::unique_ptr<File>> files_;  // the program, then its libraries
};

}  // namespace enchilada
