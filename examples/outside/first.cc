// The first program: a table larger than its RAM, marked, changed and taken back.
#include <enchilada/enchilada.h>

#include <cstdint>
#include <cstdio>

int main() {
  auto vm = enchilada::Vm::create({.ram_bytes = 32 << 20});
  if (!vm) {
    std::fprintf(stderr, "%s\n", vm.error().message.c_str());
    return 1;
  }
  enchilada::Region region = vm->map(std::uint64_t{128} << 20).value();  // four times the RAM
  auto* const table = reinterpret_cast<std::uint64_t*>(region.data());
  const std::uint64_t n = region.size() / sizeof(*table);
  for (std::uint64_t i = 0; i < n; ++i) table[i] = i;

  const enchilada::Snapshot mark = region.snapshot().value();
  for (std::uint64_t i = 0; i < n; i += 1000) table[i] = 0;
  std::printf("changed: %zu ranges\n", region.diff(mark).value().size());
  if (!region.rollback(mark)) return 1;

  std::uint64_t wrong = 0;
  for (std::uint64_t i = 0; i < n; ++i) wrong += table[i] != i ? 1 : 0;
  const auto statistics = vm->statistics().value();
  std::printf("wrong after rollback: %llu\n", static_cast<unsigned long long>(wrong));
  std::printf("resident: %llu MiB of %llu MiB\n",
              static_cast<unsigned long long>(statistics.resident_bytes >> 20),
              static_cast<unsigned long long>(region.size() >> 20));
  return wrong == 0 ? 0 : 1;
}
