// Sizes: what people write, and what they must not.
#include "cli/sizes.h"

#include <gtest/gtest.h>

namespace enchilada::cli {
namespace {

constexpr std::uint64_t kKiB = 1024;

TEST(Sizes, WhatPeopleWrite) {
  EXPECT_EQ(parse_size("0"), 0u);
  EXPECT_EQ(parse_size("4096"), 4096u);
  EXPECT_EQ(parse_size("64K"), 64 * kKiB);
  EXPECT_EQ(parse_size("64k"), 64 * kKiB);
  EXPECT_EQ(parse_size("128M"), 128 * kKiB * kKiB);
  EXPECT_EQ(parse_size("128MiB"), 128 * kKiB * kKiB);
  EXPECT_EQ(parse_size("4GB"), 4 * kKiB * kKiB * kKiB);
  EXPECT_EQ(parse_size("1.5G"), 1536 * kKiB * kKiB);
  EXPECT_EQ(parse_size(".5M"), 512 * kKiB);
  EXPECT_EQ(parse_size("1T"), kKiB * kKiB * kKiB * kKiB);
}

TEST(Sizes, Nonsense) {
  for (const char* text : {"", " ", "M", ".", "x", "-1", "+1", "1X", "1 M", "1MM", "0x10", "1e9", "1.2.3",
                           "64Ki b", "99999999999999999999", "8E", "9000000T", "1.00000000000001G"}) {
    EXPECT_FALSE(parse_size(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace enchilada::cli
