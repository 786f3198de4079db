// Containers in a region: they work, reuse what they free, and roll back as a whole.
#include <enchilada/memory_resource.h>
#include <gtest/gtest.h>

#include <map>
#include <memory_resource>
#include <string>
#include <vector>

namespace enchilada {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
using Table = std::pmr::map<std::pmr::string, std::uint64_t>;

TEST(RegionResource, AWholeMapRollsBack) {
  auto vm = Vm::create({.ram_bytes = 4 * kMiB});
  if (!vm && vm.error().code == ErrorCode::kNotSupported) GTEST_SKIP() << vm.error().message;
  ASSERT_TRUE(vm) << vm.error().message;
  Region region = vm->map(64 * kMiB).value();
  RegionResource resource(region);
  Table* const table = resource.make<Table>(&resource);
  for (std::uint64_t i = 0; i < 20'000; ++i)
    table->emplace("a key that is too long for the string " + std::to_string(i), i);
  const Snapshot mark = region.snapshot().value();
  for (int round = 0; round < 3; ++round) {
    for (std::uint64_t i = 0; i < 20'000; i += 2)
      table->erase("a key that is too long for the string " + std::pmr::string(std::to_string(i)));
    for (std::uint64_t i = 0; i < 5'000; ++i) table->emplace("other " + std::to_string(i), i);
    EXPECT_EQ(table->size(), 15'000u);
    ASSERT_TRUE(region.rollback(mark));
    ASSERT_EQ(table->size(), 20'000u);
    std::uint64_t sum = 0;
    for (const auto& [key, value] : *table) sum += value;
    EXPECT_EQ(sum, std::uint64_t{20'000} * 19'999 / 2);
  }
}

TEST(RegionResource, FreedMemoryIsUsedAgain) {
  auto vm = Vm::create({.ram_bytes = 4 * kMiB});
  if (!vm && vm.error().code == ErrorCode::kNotSupported) GTEST_SKIP() << vm.error().message;
  Region region = vm->map(kMiB).value();
  RegionResource resource(region);
  for (int i = 0; i < 1000; ++i) {
    std::pmr::vector<std::uint64_t> numbers(10'000, &resource);
    numbers.back() = 1;
  }
  EXPECT_LT(resource.used(), kMiB);
  EXPECT_THROW(std::pmr::vector<std::byte>(2 * kMiB, &resource), std::bad_alloc);
}

}  // namespace
}  // namespace enchilada
