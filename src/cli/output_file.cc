// Invariants: see output_file.h.
#include "cli/output_file.h"

#include <fmt/format.h>

#include <fstream>

#include "cli/user_error.h"

namespace enchilada::cli {
namespace {

[[noreturn]] void refuse(std::string_view option, const std::string& name) {
  throw UserError(fmt::format("{} {}: cannot be written", option, name));
}

}  // namespace

void write_output(std::string_view option, const std::string& name, const std::string& text) {
  if (name == "-") {
    fmt::print("{}", text);
    return;
  }
  std::ofstream out(name);
  out << text << std::flush;
  if (!out) refuse(option, name);
}

void check_writable(std::string_view option, const std::string& name) {
  if (name.empty() || name == "-") return;
  if (!std::ofstream(name, std::ios::app)) refuse(option, name);
}

}  // namespace enchilada::cli
