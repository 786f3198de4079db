// Reads the first page of the file, once for each exec. No libc: it also runs in children of vfork.
#include "runtime/preload/exec_target.h"

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/syscall.h>

#include "runtime/preload/syscalls.h"

namespace enchilada::runtime {
namespace {

constexpr std::size_t kHead = 4096;  // in this much lie the program headers of all linkers
constexpr int kMaxScriptDepth = 5;   // as the kernel's limit on nested interpreters
static_assert(kTargetScratch >= kHead + PATH_MAX);

/// The beginning of the file; 0 when it cannot be read.
std::size_t read_head(const char* path, char* head) {
  const long fd = raw_syscall(SYS_openat, AT_FDCWD, as_long(path), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return 0;
  const long got = raw_syscall(SYS_pread64, fd, as_long(head), kHead, 0);
  raw_syscall(SYS_close, fd);
  return got > 0 ? static_cast<std::size_t>(got) : 0;
}

/// The loader itself is a program, too, and needs none.
bool is_loader(const char* path) {
  const char* name = path;
  for (const char* at = path; *at != 0; ++at) {
    if (*at == '/') name = at + 1;
  }
  for (const char* prefix = "ld-linux"; *prefix != 0; ++prefix) {
    if (*name++ != *prefix) return false;
  }
  return true;
}

UnmanagedWhy judge_elf(const char* path, const char* head, std::size_t size) {
  if (size < sizeof(Elf64_Ehdr)) return UnmanagedWhy::kNothing;
  if (head[EI_CLASS] == ELFCLASS32) return UnmanagedWhy::kOtherKind;
  Elf64_Ehdr header;
  __builtin_memcpy(&header, head, sizeof(header));
  if (header.e_machine != EM_X86_64 || (header.e_type != ET_EXEC && header.e_type != ET_DYN)) {
    return UnmanagedWhy::kNothing;
  }
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    const std::uint64_t at = header.e_phoff + std::uint64_t{i} * header.e_phentsize;
    if (at > size - sizeof(Elf64_Phdr)) return UnmanagedWhy::kNothing;  // it cannot be told
    Elf64_Phdr segment;
    __builtin_memcpy(&segment, head + at, sizeof(segment));
    if (segment.p_type == PT_INTERP) return UnmanagedWhy::kNothing;
  }
  return is_loader(path) ? UnmanagedWhy::kNothing : UnmanagedWhy::kStatic;
}

bool blank(char c) {
  return c == ' ' || c == '\t';
}

/// Cuts the interpreter out of "#! /path arguments"; nullptr: there is none.
const char* interpreter_of(char* head, std::size_t size) {
  std::size_t from = 2;
  while (from < size && blank(head[from])) ++from;
  std::size_t to = from;
  while (to < size && !blank(head[to]) && head[to] != '\n' && head[to] != 0) ++to;
  if (to == from || to >= size) return nullptr;
  head[to] = 0;
  return head + from;
}

}  // namespace

UnmanagedWhy judge_program(const char* path, char* scratch) {
  char* const head = scratch;
  char* const name = scratch + kHead;
  for (int depth = 0; depth < kMaxScriptDepth; ++depth) {
    const std::size_t size = read_head(path, head);
    if (size >= sizeof(Elf64_Ehdr) && __builtin_memcmp(head, ELFMAG, SELFMAG) == 0) {
      return judge_elf(path, head, size);
    }
    if (size < 2 || head[0] != '#' || head[1] != '!') return UnmanagedWhy::kNothing;
    const char* interpreter = interpreter_of(head, size < 256 ? size : 256);
    if (interpreter == nullptr) return UnmanagedWhy::kNothing;
    std::size_t n = 0;
    while ((name[n] = interpreter[n]) != 0) ++n;
    path = name;
  }
  return UnmanagedWhy::kNothing;
}

UnmanagedWhy judge_program_in_path(const char* name, const char* search_path, char* scratch) {
  bool is_path = search_path == nullptr;
  for (const char* at = name; *at != 0; ++at) is_path |= *at == '/';
  if (is_path) return judge_program(name, scratch);
  char candidate[PATH_MAX];
  for (const char* part = search_path; *part != 0;) {
    std::size_t n = 0;
    while (*part != 0 && *part != ':' && n + 2 < sizeof(candidate)) candidate[n++] = *part++;
    candidate[n++] = '/';
    for (const char* at = name; *at != 0 && n + 1 < sizeof(candidate); ++at) candidate[n++] = *at;
    candidate[n] = 0;
    constexpr long kExecutable = 1;
    if (raw_syscall(SYS_access, as_long(candidate), kExecutable) == 0)
      return judge_program(candidate, scratch);
    while (*part != 0 && *part != ':') ++part;
    if (*part == ':') ++part;
  }
  return UnmanagedWhy::kNothing;
}

}  // namespace enchilada::runtime
