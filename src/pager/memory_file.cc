// MemoryFile: a vector and a lock. Memory is allocated by resize() alone.
#include "pager/memory_file.h"

#include <cstring>

#include "base/check.h"

namespace enchilada {

MemoryFile::MemoryFile(ByteCount size, std::uint64_t seed)
    : bytes_(size.value()), size_(size.value()), random_(seed * 2 + 1) {}

/// Xorshift (Marsaglia 2003): the same failures for the same seed.
bool MemoryFile::fails(std::uint32_t rate) {
  if (rate == 0) return false;
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return random_ % 1000 < rate;
}

bool MemoryFile::read(ByteCount offset, std::span<std::byte> bytes) {
  MutexLock guard(lock_);
  reads_.fetch_add(1, std::memory_order_relaxed);
  if (fails(read_errors_)) return false;
  CHECK(offset.value() + bytes.size() <= bytes_.size(), offset.value(), bytes.size());
  std::memcpy(bytes.data(), bytes_.data() + offset.value(), bytes.size());
  return true;
}

bool MemoryFile::write(ByteCount offset, std::span<const std::byte> bytes) {
  MutexLock guard(lock_);
  writes_.fetch_add(1, std::memory_order_relaxed);
  if (fails(write_errors_)) return false;
  CHECK(offset.value() + bytes.size() <= bytes_.size(), offset.value(), bytes.size());
  std::memcpy(bytes_.data() + offset.value(), bytes.data(), bytes.size());
  return true;
}

bool MemoryFile::resize(ByteCount size) {
  MutexLock guard(lock_);
  bytes_.resize(size.value());
  size_.store(size.value(), std::memory_order_relaxed);
  return true;
}

void MemoryFile::set_error_rates(std::uint32_t reads, std::uint32_t writes) {
  MutexLock guard(lock_);
  read_errors_ = reads;
  write_errors_ = writes;
}

}  // namespace enchilada
