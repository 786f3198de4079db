// Formats of traces, packing, and what is said about bad ones; and the published traces where they are.
#include <gtest/gtest.h>
#include <zlib.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "lab/policies/trace_reader.h"

namespace enchilada::lab {
namespace {

using Refs = std::vector<Reference>;

Trace parse(std::string_view bytes, std::string_view format = "auto", std::string_view name = "t") {
  return parse_trace(name, bytes, {.format = format});
}

std::string error_of(std::string_view bytes, std::string_view format = "auto", std::string_view name = "t") {
  try {
    (void)parse(bytes, format, name);
  } catch (const TraceError& error) {
    return error.what();
  }
  return "read";
}

TEST(TraceReader, NumbersPagesByAddress) {
  const Trace trace = parse("l 0x5000 1\ns 0x1008 1\nl 0x5fff 1\n");
  EXPECT_EQ(trace.pages, 2u);
  EXPECT_EQ(trace.refs, (Refs{{1, false}, {0, true}, {1, false}}));
}

TEST(TraceReader, KnowsTextFormatsByTheirFirstLine) {
  EXPECT_EQ(parse("==1== Lackey\nI  0401ab70,3\n L 1ffefff8,16\n S 1000,4\n M 2000,4\n").refs,
            (Refs{{2, false}, {3, false}, {4, false}, {0, true}, {1, true}}));  // one access crosses a page
  EXPECT_EQ(parse("0041f7a0 R\n13f5e2c0 W\n").refs, (Refs{{0, false}, {1, true}}));
  EXPECT_EQ(parse("0x401000: R 0x7000\n0x401004: W 0x8000\n#eof\n").refs, (Refs{{0, false}, {1, true}}));
  EXPECT_EQ(parse("3 8192\n0 4096 12288\n").refs, (Refs{{1, false}, {0, false}, {2, true}}));
  EXPECT_EQ(parse("7\n*\n3\r\n7\n").refs, (Refs{{1, false}, {0, false}, {1, false}}));
  EXPECT_EQ(parse("time,op,lbn\n1,2a,9\n2,28,4\n").refs, (Refs{{1, true}, {0, false}}));
  EXPECT_EQ(parse("0 1000\n1 2000\n2 1004\n", "din").refs, (Refs{{0, false}, {1, true}, {0, false}}));
}

TEST(TraceReader, ReadsBinaryFormatsThatNamesTell) {
  const std::string request(4, 't');
  const std::string one = request + std::string("\x05\0\0\0\0\0\0\0", 8) + std::string(12, 'x');
  const std::string two = request + std::string("\x02\0\0\0\0\0\0\0", 8) + std::string(12, 'x');
  EXPECT_EQ(parse(one + two, "auto", "a.oracleGeneral.bin").refs, (Refs{{1, false}, {0, false}}));
  EXPECT_EQ(parse(std::string("\x09\0\0\0\x01\0\0\0", 8), "u32").refs, (Refs{{1, false}, {0, false}}));
}

TEST(TraceReader, SaysInOneLineWhereATraceIsBad) {
  EXPECT_EQ(error_of("12\nabc\n"), "line 2: no reference: 'abc'");
  EXPECT_EQ(error_of(""), "no references in it (read as numbers)");
  EXPECT_EQ(error_of("a,b\n1,2\n"), "csv: no column obj_id, id, lbn, block, page or key in the first line");
  EXPECT_EQ(error_of(std::string(25, 'x'), "oracleGeneral"), "25 bytes are no whole records of 24");
  EXPECT_EQ(error_of("1\n", "pdf"), "no format is called pdf");
  EXPECT_EQ(error_of(std::string(8, '\0')),
            "binary, and its name does not tell the format: say which with --format");
  EXPECT_EQ(error_of("PK\x03\x04 and no more"), "a zip file that is cut off");
  try {
    (void)read_trace("/nonexistent/trace", {});
    FAIL();
  } catch (const TraceError& error) {
    EXPECT_STREQ(error.what(), "/nonexistent/trace: cannot be opened");
  }
}

TEST(TraceReader, AGzipFileThatIsCutOffIsNotAShortTrace) {
  std::string text;
  for (int i = 0; i < 10'000; ++i) text += std::to_string(i * 7919 % 1000) + "\n";
  std::string packed(compressBound(text.size()) + 64, '\0');
  z_stream z{};
  ASSERT_EQ(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  z.next_in = reinterpret_cast<Bytef*>(text.data());
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = reinterpret_cast<Bytef*>(packed.data());
  z.avail_out = static_cast<uInt>(packed.size());
  ASSERT_EQ(deflate(&z, Z_FINISH), Z_STREAM_END);
  packed.resize(z.total_out);
  deflateEnd(&z);
  EXPECT_EQ(unpack(packed), text);
  EXPECT_EQ(unpack(packed + packed), text + text);  // members in a row are one stream
  EXPECT_THROW((void)unpack(packed.substr(0, packed.size() / 2)), TraceError);
}

/// What the publishers say is in them (shared/data/README.md).
TEST(TraceReader, ReadsThePublishedTraces) {
  struct Published {
    const char* file;
    std::size_t refs;
    std::uint32_t pages;
  };
  constexpr Published kTraces[] = {
      {"address-gzip.trace.gz", 481'044, 39'856},      {"address-gcc.trace.gz", 515'683, 294},
      {"address-mcf.trace.gz", 727'230, 1'442},        {"cloudPhysicsIO.oracleGeneral.bin", 113'872, 48'974},
      {"cloudPhysicsIO.txt", 113'872, 48'974},         {"cloudPhysicsIO.csv", 113'872, 48'974},
      {"cloudPhysicsIO.vscsi", 113'872, 48'974},       {"cloudphysics-w106.trace.xz", 5'292'456, 275'171},
      {"drmemtrace.simple_app.trace.zip", 43'845, 84},
  };
  const char* const elsewhere = std::getenv("ENCHILADA_TRACES");
  const std::filesystem::path folder = elsewhere != nullptr ? elsewhere : ENCHILADA_TRACES;
  if (!std::filesystem::exists(folder))
    GTEST_SKIP() << "the published traces are not here (" << folder << ")";
  for (const Published& published : kTraces) {
    const Trace trace = read_trace(folder / published.file, {});
    EXPECT_EQ(trace.refs.size(), published.refs) << published.file;
    EXPECT_EQ(trace.pages, published.pages) << published.file;
  }
}

}  // namespace
}  // namespace enchilada::lab
