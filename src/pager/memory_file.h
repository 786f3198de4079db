// MemoryFile: a file in memory, for simulated machines; it can be told to fail. Invariant: see file_store.h.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "base/mutex.h"
#include "pager/file_store.h"

namespace enchilada {

class MemoryFile final : public FileStore {
 public:
  /// All zeros. `seed`: of the failures that set_error_rates() asks for.
  explicit MemoryFile(ByteCount size, std::uint64_t seed = 1);

  [[nodiscard]] ByteCount size() const override { return ByteCount{size_.load(std::memory_order_relaxed)}; }
  [[nodiscard]] bool read(ByteCount offset, std::span<std::byte> bytes) override;
  [[nodiscard]] bool write(ByteCount offset, std::span<const std::byte> bytes) override;
  [[nodiscard]] bool resize(ByteCount size) override;

  /// From now on so many of 1000 operations fail; 1000 = all.
  void set_error_rates(std::uint32_t reads, std::uint32_t writes);
  [[nodiscard]] std::uint64_t reads() const { return reads_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t writes() const { return writes_.load(std::memory_order_relaxed); }

 private:
  [[nodiscard]] bool fails(std::uint32_t rate) REQUIRES(lock_);

  Mutex lock_;  // unranked: held for the copying alone
  std::vector<std::byte> bytes_ GUARDED_BY(lock_);
  std::atomic<std::uint64_t> size_;
  std::uint64_t random_ GUARDED_BY(lock_);
  std::uint32_t read_errors_ GUARDED_BY(lock_) = 0;
  std::uint32_t write_errors_ GUARDED_BY(lock_) = 0;
  std::atomic<std::uint64_t> reads_{0};
  std::atomic<std::uint64_t> writes_{0};
};

}  // namespace enchilada
