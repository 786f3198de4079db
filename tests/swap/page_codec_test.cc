// The codecs of the compressed store: every page comes back, and no bytes make them do harm.
#include "swap/page_codec.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "swap_test_support.h"

namespace enchilada {
namespace {

using swap_test::for_each_seed;
using swap_test::Random;
using swap_test::rounds;

class PageCodecs : public testing::TestWithParam<CompressionMode> {
 protected:
  PageCodecs()
      : codec_(page_codec(GetParam())),
        memory_(codec_.pack_bytes() + codec_.unpack_bytes() + 2 * kPageSize),
        pack_(codec_.prepare_pack(memory_.data())),
        unpack_(codec_.prepare_unpack(memory_.data() + (codec_.pack_bytes() + 63) / 64 * 64)) {}

  const PageCodec& codec_;
  swap_test::SharedMemory memory_;
  void* pack_;
  void* unpack_;
};
INSTANTIATE_TEST_SUITE_P(Modes, PageCodecs, testing::Values(CompressionMode::kLz4, CompressionMode::kZstd));

/// Runs of noise and of repetition.
std::vector<std::byte> some_page(Random& random) {
  std::vector<std::byte> page(kPageSize);
  for (std::size_t at = 0; at < kPageSize;) {
    const std::size_t n = std::min<std::size_t>(kPageSize - at, random.between(1, 900));
    const bool noise = random.one_in(3);
    const auto same = static_cast<std::byte>(random.below(256));
    for (std::size_t i = 0; i < n; ++i)
      page[at + i] = noise ? static_cast<std::byte>(random.below(256)) : same;
    at += n;
  }
  return page;
}

TEST_P(PageCodecs, EveryPageComesBack) {
  for_each_seed(1, rounds(300), [&](std::uint64_t seed) {
    Random random(seed);
    const std::vector<std::byte> page = some_page(random);
    std::vector<std::byte> packed(kPageSize * 2);
    const std::size_t size = codec_.pack(pack_, page.data(), packed);
    ASSERT_GT(size, 0u);
    std::vector<std::byte> back(kPageSize);
    ASSERT_TRUE(codec_.unpack(unpack_, {packed.data(), size}, back.data()));
    EXPECT_EQ(back, page);
    EXPECT_EQ(codec_.pack(pack_, page.data(), std::span(packed).first(size / 2)), 0u) << "it does not fit";
    std::vector<std::byte> exact(size);
    const std::size_t again = codec_.pack(pack_, page.data(), exact);
    EXPECT_TRUE(again == 0 || again == size) << "with no byte to spare it may give up, not write beyond";
  });
}

TEST_P(PageCodecs, DamagedBytesDoNoHarm) {
  for_each_seed(1, rounds(500), [&](std::uint64_t seed) {
    Random random(seed);
    const std::vector<std::byte> page = some_page(random);
    std::vector<std::byte> packed(kPageSize * 2);
    std::size_t size = codec_.pack(pack_, page.data(), packed);
    for (std::uint64_t n = random.between(1, 4); n > 0; --n)
      packed[random.below(size)] = static_cast<std::byte>(random.below(256));
    if (random.one_in(3)) size = random.below(size + 1);
    std::vector<std::byte> guarded(kPageSize + 64, std::byte{0x5a});
    (void)codec_.unpack(unpack_, {packed.data(), size}, guarded.data());
    for (std::size_t i = kPageSize; i < guarded.size(); ++i) ASSERT_EQ(guarded[i], std::byte{0x5a});
  });
}

TEST(PageCodec, ZstdMakesTextLikePagesSmallerThanLz4) {
  std::size_t sizes[2] = {};
  for (const CompressionMode mode : {CompressionMode::kLz4, CompressionMode::kZstd}) {
    const PageCodec& codec = page_codec(mode);
    swap_test::SharedMemory memory(codec.pack_bytes() + kPageSize);
    void* const state = codec.prepare_pack(memory.data());
    Random random(7);
    std::vector<std::byte> page(kPageSize);
    for (std::byte& b : page) b = static_cast<std::byte>("etaoin shrdlu"[random.below(13)]);
    std::vector<std::byte> packed(kPageSize * 2);
    sizes[static_cast<std::size_t>(mode)] = codec.pack(state, page.data(), packed);
  }
  EXPECT_LT(sizes[1], sizes[0] * 3 / 4);
}

}  // namespace
}  // namespace enchilada
