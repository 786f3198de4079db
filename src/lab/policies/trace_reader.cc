// The formats. Invariants: see trace_reader.h.
#include "lab/policies/trace_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>

namespace enchilada::lab {
namespace {

using Accesses = std::vector<RawAccess>;
using Words = std::vector<std::string_view>;

Words split(std::string_view line, std::string_view separators) {
  Words words;
  for (std::size_t at = 0; (at = line.find_first_not_of(separators, at)) != std::string_view::npos;) {
    const std::size_t end = std::min(line.find_first_of(separators, at), line.size());
    words.push_back(line.substr(at, end - at));
    at = end;
  }
  return words;
}

/// The whole word, or nothing. 0x in front is allowed where the base is 16.
std::optional<std::uint64_t> number(std::string_view word, int base) {
  if (base == 16 && (word.substr(0, 2) == "0x" || word.substr(0, 2) == "0X")) word.remove_prefix(2);
  std::uint64_t n = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), n, base);
  if (error != std::errc() || end != word.data() + word.size() || word.empty()) return std::nullopt;
  return n;
}

/// Calls `take(line)` for each line that is not empty; false from it stops with the line's number.
template <class Take>
void for_lines(std::string_view text, Take&& take) {
  std::size_t n = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++n;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
    if (!take(line)) throw TraceError(fmt::format("line {}: no reference: '{}'", n, line.substr(0, 40)));
  }
}

std::optional<bool> is_write(std::string_view word) {
  constexpr std::string_view kWrites[] = {"W", "w", "s", "S", "M", "write", "WRITE", "Write", "2a", "1"};
  constexpr std::string_view kReads[] = {"R", "r", "l", "L", "I", "read", "READ", "Read", "28", "0", "2"};
  if (std::find(std::begin(kWrites), std::end(kWrites), word) != std::end(kWrites)) return true;
  if (std::find(std::begin(kReads), std::end(kReads), word) != std::end(kReads)) return false;
  return std::nullopt;
}

/// Lines that have a word for the direction and one for the address, in this order of columns.
Accesses parse_columns(std::string_view text, std::uint64_t page_size, std::size_t direction,
                       std::size_t address) {
  Accesses all;
  for_lines(text, [&](std::string_view line) {
    if (line[0] == '#') return true;
    const Words words = split(line, " \t:,");
    if (words.size() <= std::max(direction, address)) return false;
    const auto write = is_write(words[direction]);
    const auto at = number(words[address], 16);
    if (!write || !at) return false;
    all.push_back({*at / page_size, *write});
    return true;
  });
  return all;
}

Accesses parse_address(std::string_view text, std::uint64_t page_size) {
  return parse_columns(text, page_size, 0, 1);
}
Accesses parse_din(std::string_view text, std::uint64_t page_size) {
  return parse_columns(text, page_size, 0, 1);
}
Accesses parse_teaching(std::string_view text, std::uint64_t page_size) {
  return parse_columns(text, page_size, 1, 0);
}
Accesses parse_pinatrace(std::string_view text, std::uint64_t page_size) {
  return parse_columns(text, page_size, 1, 2);
}

/// valgrind --tool=lackey --trace-mem=yes: an access over a page's end touches both.
Accesses parse_lackey(std::string_view text, std::uint64_t page_size) {
  Accesses all;
  for_lines(text, [&](std::string_view line) {
    if (line.substr(0, 2) == "==") return true;
    const Words words = split(line, " \t,");
    if (words.size() != 3 || words[0].size() != 1) return false;
    const auto write = is_write(words[0]);
    const auto at = number(words[1], 16);
    const auto size = number(words[2], 10);
    if (!write || !at || !size || *size == 0) return false;
    all.push_back({*at / page_size, *write});
    const std::uint64_t last = (*at + *size - 1) / page_size;
    if (last != all.back().page) all.push_back({last, *write});
    return true;
  });
  return all;
}

/// Ramulator's CPU traces: instructions before it, an address read, and perhaps one written back.
Accesses parse_ramulator(std::string_view text, std::uint64_t page_size) {
  Accesses all;
  for_lines(text, [&](std::string_view line) {
    const Words words = split(line, " \t");
    const auto read = words.size() == 2 || words.size() == 3 ? number(words[1], 10) : std::nullopt;
    if (!read) return false;
    all.push_back({*read / page_size, false});
    if (words.size() == 2) return true;
    const auto written = number(words[2], 10);
    if (written) all.push_back({*written / page_size, true});
    return written.has_value();
  });
  return all;
}

/// A block or object a line; LIRS's traces have lines with a star between.
Accesses parse_numbers(std::string_view text, std::uint64_t) {
  Accesses all;
  for_lines(text, [&](std::string_view line) {
    const Words words = split(line, " \t");
    if (words.size() != 1) return false;
    if (words[0] == "*") return true;
    const auto n = number(words[0], 10);
    if (n) all.push_back({*n, false});
    return n.has_value();
  });
  return all;
}

std::optional<std::size_t> column(const Words& header, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    const auto found = std::find(header.begin(), header.end(), name);
    if (found != header.end()) return static_cast<std::size_t>(found - header.begin());
  }
  return std::nullopt;
}

/// Columns by the names in the first line.
Accesses parse_csv(std::string_view text, std::uint64_t) {
  Accesses all;
  std::optional<std::size_t> id;
  std::optional<std::size_t> op;
  for_lines(text, [&](std::string_view line) {
    const Words words = split(line, ",; \t");
    if (!id) {
      id = column(words, {"obj_id", "obj-id", "id", "lbn", "block", "page", "key"});
      op = column(words, {"op", "rw", "type"});
      if (!id) throw TraceError("csv: no column obj_id, id, lbn, block, page or key in the first line");
      return true;
    }
    if (words.size() <= std::max(*id, op.value_or(0))) return false;
    const auto n = number(words[*id], 10);
    if (n) all.push_back({*n, op && is_write(words[*op]).value_or(false)});
    return n.has_value();
  });
  return all;
}

template <class T>
T load(std::string_view bytes, std::size_t at) {
  T value{};
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

void check_records(std::string_view bytes, std::size_t record) {
  if (bytes.size() % record == 0) return;
  throw TraceError(fmt::format("{} bytes are no whole records of {}", bytes.size(), record));
}

/// u32 time, u64 id, u32 size, i64 next use.
Accesses parse_oracle_general(std::string_view bytes, std::uint64_t) {
  constexpr std::size_t kRecord = 24;
  check_records(bytes, kRecord);
  Accesses all;
  for (std::size_t at = 0; at < bytes.size(); at += kRecord)
    all.push_back({load<std::uint64_t>(bytes, at + 4), false});
  return all;
}

/// CloudPhysics: u32 number, length, segments, u16 command, version, u64 block, time.
Accesses parse_vscsi(std::string_view bytes, std::uint64_t) {
  constexpr std::size_t kRecord = 32;
  constexpr std::uint16_t kWrite10 = 0x2a;
  check_records(bytes, kRecord);
  Accesses all;
  for (std::size_t at = 0; at < bytes.size(); at += kRecord) {
    all.push_back({load<std::uint64_t>(bytes, at + 16), load<std::uint16_t>(bytes, at + 12) == kWrite10});
  }
  return all;
}

/// u32 block numbers and nothing else: caffeine's CloudPhysics traces.
Accesses parse_u32(std::string_view bytes, std::uint64_t) {
  check_records(bytes, sizeof(std::uint32_t));
  Accesses all;
  for (std::size_t at = 0; at < bytes.size(); at += sizeof(std::uint32_t)) {
    all.push_back({load<std::uint32_t>(bytes, at), false});
  }
  return all;
}

/// DynamoRIO: u16 type, u16 size, u64 address; types 0 and 1 are reads and writes, the rest tells other
/// things.
Accesses parse_drmemtrace(std::string_view zip, std::uint64_t page_size) {
  constexpr std::size_t kRecord = 12;
  const std::string bytes = unpack_zip(zip);
  check_records(bytes, kRecord);
  Accesses all;
  for (std::size_t at = 0; at < bytes.size(); at += kRecord) {
    const auto type = load<std::uint16_t>(bytes, at);
    if (type <= 1) all.push_back({load<std::uint64_t>(bytes, at + 4) / page_size, type == 1});
  }
  return all;
}

constexpr TraceFormat kFormats[] = {
    {"address", "l|s 0xADDRESS n (UCSD, SPEC2000)", parse_address},
    {"lackey", "valgrind --tool=lackey --trace-mem=yes", parse_lackey},
    {"hex", "ADDRESS R|W (courses, DRAM traces)", parse_teaching},
    {"pinatrace", "0xIP: R|W 0xADDRESS", parse_pinatrace},
    {"din", "0|1|2 ADDRESS (Dinero)", parse_din},
    {"ramulator", "instructions ADDRESS [ADDRESS written], decimal", parse_ramulator},
    {"numbers", "a block or object a line (txt, LIRS)", parse_numbers},
    {"csv", "columns by name: obj_id, id, lbn, block, page or key; op, rw or type", parse_csv},
    {"oracleGeneral", "libCacheSim, 24 bytes a request", parse_oracle_general},
    {"vscsi", "CloudPhysics, 32 bytes a request", parse_vscsi},
    {"u32", "four bytes a block, little end first (caffeine's cloudphysics)", parse_u32},
    {"drmemtrace", "DynamoRIO, zip", parse_drmemtrace},
};

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// By the first line that is not a comment; what several formats could have written goes to the likeliest.
std::string_view format_of_text(std::string_view text) {
  std::string_view line;
  try {
    for_lines(text, [&](std::string_view l) {
      line = l;
      return l.substr(0, 2) == "==" || l[0] == '#' || l[0] == '*';
    });
  } catch (const TraceError&) {  // the line
  }
  const Words words = split(line, " \t,:");
  if (words.empty()) return "numbers";
  if (words.size() == 3 && contains(line, ",") && words[0].size() == 1 && is_write(words[0])) return "lackey";
  if (words.size() >= 2 && (words[0] == "l" || words[0] == "s")) return "address";
  if (words.size() == 3 && contains(line, ":") && is_write(words[1])) return "pinatrace";
  if (words.size() == 2 && (words[1] == "R" || words[1] == "W")) return "hex";
  if (contains(line, ",") && !number(words[0], 10)) return "csv";
  return words.size() == 1 ? "numbers" : "ramulator";
}

std::string_view format_of(std::string_view name, std::string_view bytes) {
  if (bytes.substr(0, 2) == "PK") return "drmemtrace";
  if (contains(name, "oracleGeneral")) return "oracleGeneral";
  if (contains(name, ".vscsi")) return "vscsi";
  if (contains(name, "cloudphysics")) return "u32";
  if (contains(bytes.substr(0, 4096), std::string_view("\0", 1))) {
    throw TraceError("binary, and its name does not tell the format: say which with --format");
  }
  return format_of_text(bytes);
}

const TraceFormat& find_format(std::string_view name) {
  for (const TraceFormat& format : kFormats) {
    if (format.name == name) return format;
  }
  throw TraceError(fmt::format("no format is called {}", name));
}

Trace number_pages(std::string_view name, const Accesses& accesses) {
  std::vector<std::uint64_t> pages;
  pages.reserve(accesses.size());
  for (const RawAccess& access : accesses) pages.push_back(access.page);
  std::sort(pages.begin(), pages.end());
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  if (pages.size() >= kNoPage) throw TraceError("more pages than 31 bits can number");
  Trace trace{std::string(name), static_cast<std::uint32_t>(pages.size()), {}};
  trace.refs.reserve(accesses.size());
  for (const RawAccess& access : accesses) {
    const auto at = std::lower_bound(pages.begin(), pages.end(), access.page) - pages.begin();
    trace.refs.emplace_back(static_cast<std::uint32_t>(at), access.write);
  }
  return trace;
}

}  // namespace

std::span<const TraceFormat> trace_formats() {
  return kFormats;
}

Trace parse_trace(std::string_view name, std::string_view bytes, const TraceReadOptions& options) {
  const TraceFormat& format = find_format(options.format == "auto" ? format_of(name, bytes) : options.format);
  const Accesses accesses = format.parse(bytes, options.page_size);
  if (accesses.empty()) throw TraceError(fmt::format("no references in it (read as {})", format.name));
  return number_pages(name, accesses);
}

Trace read_trace(const std::string& file, const TraceReadOptions& options) {
  try {
    return parse_trace(file, unpack(read_bytes(file)), options);
  } catch (const TraceError& error) {
    throw TraceError(fmt::format("{}: {}", file, error.what()));
  }
}

}  // namespace enchilada::lab
