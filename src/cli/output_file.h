// What a command writes where it was told to: a file, or standard output. Invariant: whoever cannot write
// says so in one line that names the option and the file.
#pragma once

#include <string>
#include <string_view>

namespace enchilada::cli {

/// To the file, or for "-" to standard output. Throws UserError.
void write_output(std::string_view option, const std::string& name, const std::string& text);
/// Says what write_output() would, before a long run instead of after it. An empty name is no file.
void check_writable(std::string_view option, const std::string& name);

}  // namespace enchilada::cli
