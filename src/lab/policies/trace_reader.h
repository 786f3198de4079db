// Reading traces of others: which format it is, what is packed around it, and page numbers that lie densely.
//
// Addresses are divided by the page size; blocks, lines and objects are pages as they are. Pages are numbered
// in the order of their addresses, so that neighbours stay neighbours. Invariant: what cannot be read whole
// is not read at all: TraceError has one line that says where it ends to make sense.
#pragma once

#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "lab/policies/trace.h"

namespace enchilada::lab {

class TraceError : public std::runtime_error {
  using runtime_error::runtime_error;
};

/// One access, before pages are numbered.
struct RawAccess {
  std::uint64_t page;
  bool write;
};

struct TraceFormat {
  std::string_view name;
  std::string_view what;
  /// Throws TraceError without the file's name.
  std::vector<RawAccess> (*parse)(std::string_view bytes, std::uint64_t page_size);
};

[[nodiscard]] std::span<const TraceFormat> trace_formats();

struct TraceReadOptions {
  std::string_view format = "auto";
  std::uint64_t page_size = 4096;
};

/// The file, or "-" for standard input; unpacked if it is gzip, xz or zstd.
[[nodiscard]] Trace read_trace(const std::string& file, const TraceReadOptions& options);
/// Its bytes, unpacked. The name tells formats that nothing else tells.
[[nodiscard]] Trace parse_trace(std::string_view name, std::string_view bytes,
                                const TraceReadOptions& options);

// trace_unpack.cc
[[nodiscard]] std::string read_bytes(const std::string& file);
/// As it is, if it is not packed.
[[nodiscard]] std::string unpack(std::string bytes);
/// All members of a zip file, one after the other.
[[nodiscard]] std::string unpack_zip(std::string_view bytes);

}  // namespace enchilada::lab
