// UserError: what the command cannot do for its user, in one line, with the exit status that says so.
#pragma once

#include <stdexcept>
#include <string>

namespace enchilada::cli {

inline constexpr int kStatusUsage = 2;            // bad argument, or this machine or program cannot be served
inline constexpr int kStatusNotExecutable = 126;  // as shells
inline constexpr int kStatusNotFound = 127;

class UserError : public std::runtime_error {
 public:
  explicit UserError(const std::string& line, int status = kStatusUsage)
      : runtime_error(line), status_(status) {}
  [[nodiscard]] int status() const { return status_; }

 private:
  int status_;
};

}  // namespace enchilada::cli
