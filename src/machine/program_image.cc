// Laying a program out and running it.
#include "machine/program_image.h"

#include <array>

#include "vm/vm_precopy.h"

namespace enchilada {

ProgramImage::File::File(SoftEngine& engine, const SegmentSize& text_size, const SegmentSize& data_size)
    : store(ByteCount{(text_size.pages + data_size.pages) * kPageSize}),
      file(VmFile::open(engine.system(), engine.file_pager(), store)),
      text(text_size),
      data(data_size) {
  CHECK(file != nullptr);
}

ProgramImage::ProgramImage(SoftEngine& engine, const ProgramLayout& layout)
    : engine_(engine), layout_(layout) {
  files_.push_back(std::make_unique<File>(engine, layout.text, layout.data));
  for (unsigned i = 0; i < layout.libraries; ++i) {
    files_.push_back(std::make_unique<File>(engine, layout.library_text, layout.library_data));
  }
}

std::uint64_t ProgramImage::written() const {
  return layout_.data.used + layout_.bss.used + layout_.heap.used + layout_.stack.used +
         layout_.libraries * layout_.library_data.used;
}

std::uint64_t ProgramImage::touched() const {
  return written() + layout_.text.used + layout_.libraries * layout_.library_text.used;
}

bool ProgramImage::map_file(Process& process, File& file) {
  const ByteCount text{file.text.pages * kPageSize};
  VmMap::MapRequest request = file.file->mapping(ByteCount{0}, text, false);
  request.prot = Prot::kRead | Prot::kExecute;
  VirtAddr at;
  if (process.map_->map(request, &at) != KernReturn::kSuccess) return false;
  process.parts_.push_back({at, file.text.used, Access::kRead});
  request = file.file->mapping(text, ByteCount{file.data.pages * kPageSize}, false);
  request.prot = Prot::kReadWrite;
  if (process.map_->map(request, &at) != KernReturn::kSuccess) return false;
  process.parts_.push_back({at, file.data.used, Access::kWrite});
  return true;
}

bool ProgramImage::map_memory(Process& process, const SegmentSize& size, bool from_top, VirtRange* hot) {
  // A page apart from what lies before it, so that no two parts become one entry.
  static constexpr std::uint64_t kApart = 64 * kPageSize;
  const VirtAddr after = process.parts_.back().first + ByteCount{kApart * 2};
  VirtAddr at;
  if (process.map_->map({.length = ByteCount{size.pages * kPageSize}, .hint = after, .alignment = kApart},
                        &at) != KernReturn::kSuccess) {
    return false;
  }
  const VirtAddr first = from_top ? at + ByteCount{(size.pages - size.used) * kPageSize} : at;
  process.parts_.push_back({first, size.used, Access::kWrite});
  const VirtAddr likely = from_top ? at + ByteCount{(size.pages - 1) * kPageSize} : at;
  *hot = {likely, likely + ByteCount{kPageSize}};
  return true;
}

std::unique_ptr<ProgramImage::Process> ProgramImage::exec() {
  std::unique_ptr<VmMap> map = engine_.create_map(PageCount{std::uint64_t{1} << 20});
  if (map == nullptr) return nullptr;
  std::unique_ptr<Process> process(new Process(engine_, std::move(map)));
  for (const auto& file : files_) {
    if (!map_file(*process, *file)) return nullptr;
  }
  std::array<VirtRange, 3> hot;
  if (!map_memory(*process, layout_.bss, false, &hot[0]) ||
      !map_memory(*process, layout_.heap, false, &hot[1]) ||
      !map_memory(*process, layout_.stack, true, &hot[2])) {
    return nullptr;
  }
  engine_.system().precopy().after_exec(*process->map_, hot);
  return process;
}

bool ProgramImage::Process::run() {
  for (const Part& part : parts_) {
    for (std::uint64_t i = 0; i < part.used; ++i) {
      const FaultResult result = engine_.machine().touch(*map_, part.first + ByteCount{i * kPageSize},
                                                         part.access, [&](std::byte* b) {
                                                           if (part.access == Access::kWrite)
                                                             *b = std::byte{1};
                                                         });
      if (result != FaultResult::kResolved) return false;
    }
  }
  return true;
}

}  // namespace enchilada
