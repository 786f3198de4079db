// `enchilada doctor`: what this kernel offers, what will be used and why, what to change.
#pragma once

namespace enchilada::cli {

/// Prints to standard output. Returns 0 when programs can be run here, 1 when not.
int doctor_command();

}  // namespace enchilada::cli
