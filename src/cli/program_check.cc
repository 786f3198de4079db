// Looks at the program's file: ELF class, dynamic linking, set-id bits, capabilities, interpreter lines.
#include "cli/program_check.h"

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "cli/user_error.h"

namespace enchilada::cli {
namespace {

constexpr int kMaxScriptDepth = 5;  // as the kernel's limit on nested interpreters

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

bool is_executable_file(const std::string& path) {
  struct stat st {};
  return stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode) && access(path.c_str(), X_OK) == 0;
}

/// Search of execvp: the first executable of PATH; remembers whether a file of that name was found that is
/// not one.
std::string find_in_path(const std::string& name) {
  const char* variable = std::getenv("PATH");
  const std::string_view path = variable != nullptr ? variable : "/bin:/usr/bin";
  std::string unusable;
  for (std::size_t at = 0; at <= path.size();) {
    const std::size_t end = std::min(path.find(':', at), path.size());
    const std::string folder(path.substr(at, end - at));
    std::string candidate = (folder.empty() ? "." : folder) + "/" + name;
    if (is_executable_file(candidate)) return candidate;
    if (unusable.empty() && access(candidate.c_str(), F_OK) == 0) unusable = candidate;
    at = end + 1;
  }
  if (!unusable.empty()) throw UserError(fmt::format("{}: not executable", unusable), kStatusNotExecutable);
  throw UserError(fmt::format("{}: no such program in PATH", name), kStatusNotFound);
}

std::string locate(const std::string& name) {
  if (name.empty()) throw UserError("the name of the program is empty", kStatusNotFound);
  if (name.find('/') == std::string::npos) return find_in_path(name);
  struct stat st {};
  if (stat(name.c_str(), &st) != 0) {
    const int status = errno == EACCES ? kStatusNotExecutable : kStatusNotFound;
    throw UserError(fmt::format("{}: {}", name, std::strerror(errno)), status);
  }
  if (S_ISDIR(st.st_mode)) throw UserError(fmt::format("{}: is a directory", name), kStatusNotExecutable);
  if (!is_executable_file(name))
    throw UserError(fmt::format("{}: not executable", name), kStatusNotExecutable);
  return name;
}

void refuse_privileged(const std::string& path) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0) return;
  const bool set_user = (st.st_mode & S_ISUID) != 0 && st.st_uid != geteuid();
  const bool set_group = (st.st_mode & S_ISGID) != 0 && (st.st_mode & S_IXGRP) != 0 && st.st_gid != getegid();
  if (set_user || set_group) {
    throw UserError(
        fmt::format("{}: is set{}id: the loader ignores LD_PRELOAD for it, so it cannot be managed", path,
                    set_user ? "u" : "g"));
  }
  if (geteuid() != 0 && getxattr(path.c_str(), "security.capability", nullptr, 0) > 0) {
    throw UserError(fmt::format(
        "{}: has file capabilities: the loader ignores LD_PRELOAD for it, so it cannot be managed", path));
  }
}

/// Path of the interpreter in "#! /path arguments"; empty when the line has none.
std::string interpreter_of(std::string_view head) {
  const std::size_t end = std::min(head.find('\n'), head.size());
  const std::size_t from = head.find_first_not_of(" \t", 2);
  if (from == std::string_view::npos || from >= end) return {};
  const std::size_t to = std::min(head.find_first_of(" \t\n", from), end);
  return std::string(head.substr(from, to - from));
}

template <class Header>
bool read_at(int fd, std::uint64_t offset, Header* out) {
  return pread(fd, out, sizeof(Header), static_cast<off_t>(offset)) == static_cast<ssize_t>(sizeof(Header));
}

void check_elf(const std::string& path, int fd) {
  Elf64_Ehdr header{};
  if (!read_at(fd, 0, &header)) throw UserError(fmt::format("{}: is cut short", path), kStatusNotExecutable);
  if (header.e_ident[EI_CLASS] == ELFCLASS32) {
    throw UserError(fmt::format("{}: is a 32-bit program; only 64-bit x86 programs can be managed", path));
  }
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != EM_X86_64) {
    throw UserError(fmt::format("{}: is not made for x86-64", path), kStatusNotExecutable);
  }
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN) {
    throw UserError(fmt::format("{}: is an object file, not a program", path), kStatusNotExecutable);
  }
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment{};
    if (!read_at(fd, header.e_phoff + std::uint64_t{i} * header.e_phentsize, &segment)) break;
    if (segment.p_type == PT_INTERP) return;
  }
  throw UserError(fmt::format(
      "{}: is statically linked: no library can be loaded into it, so it cannot be managed", path));
}

}  // namespace

ProgramInfo check_program(const std::string& name) {
  ProgramInfo info;
  info.path = locate(name);
  std::string path = info.path;
  for (int depth = 0; depth <= kMaxScriptDepth; ++depth) {
    refuse_privileged(path);
    const Descriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (file.fd < 0 && errno == EACCES) return info;  // executable but not readable: the kernel will tell
    if (file.fd < 0) throw UserError(fmt::format("{}: {}", path, std::strerror(errno)), kStatusNotExecutable);
    std::array<char, 512> head{};
    const ssize_t got = read(file.fd, head.data(), head.size());
    const std::string_view text(head.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
    if (text.starts_with(ELFMAG)) {
      check_elf(path, file.fd);
      return info;
    }
    const bool marked = text.starts_with("#!");
    const std::string interpreter = marked ? interpreter_of(text) : "/bin/sh";
    if (!marked && text.find('\0') != std::string_view::npos) {
      throw UserError(fmt::format("{}: is not a program (neither ELF nor a script)", path),
                      kStatusNotExecutable);
    }
    if (interpreter.empty() || !is_executable_file(interpreter)) {
      throw UserError(fmt::format("{}: its interpreter {} cannot be run", path, interpreter),
                      kStatusNotExecutable);
    }
    if (depth == 0) info.shell_script = !marked;
    info.interpreter = interpreter;
    path = interpreter;
  }
  throw UserError(fmt::format("{}: too many interpreters in a row", name), kStatusNotExecutable);
}

}  // namespace enchilada::cli
