// The clock agrees with libc's, and what is looked up in the vDSO is what the kernel put there.
#include "base/monotonic_clock.h"

#include <gtest/gtest.h>
#include <sys/auxv.h>
#include <time.h>

namespace enchilada {
namespace {

std::uint64_t by_libc() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

TEST(MonotonicClock, LiesBetweenTwoReadingsOfLibc) {
  for (int i = 0; i < 1000; ++i) {
    const std::uint64_t before = by_libc();
    const std::uint64_t now = monotonic_ns();
    EXPECT_GE(now, before);
    EXPECT_LE(now, by_libc());
  }
}

TEST(MonotonicClock, FindsTheFunctionsOfTheVdsoAndNoOthers) {
  const std::uintptr_t image = getauxval(AT_SYSINFO_EHDR);
  if (image == 0) GTEST_SKIP() << "this kernel maps no vDSO";
  void* const found = find_in_vdso(image, "__vdso_clock_gettime");
  ASSERT_NE(found, nullptr);
  timespec now{};
  EXPECT_EQ(reinterpret_cast<int (*)(clockid_t, timespec*)>(found)(CLOCK_MONOTONIC, &now), 0);
  EXPECT_GT(now.tv_sec, 0);
  EXPECT_NE(find_in_vdso(image, "__vdso_gettimeofday"), found);
  for (const char* name : {"", "__vdso", "__vdso_clock_gettimes", "main", "xyzzy"}) {
    EXPECT_EQ(find_in_vdso(image, name), nullptr) << name;
  }
}

}  // namespace
}  // namespace enchilada
