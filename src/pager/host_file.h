// HostFile: a file of this operating system by its descriptor (pread, pwrite, ftruncate).
// Invariant: the descriptor is the caller's, and nobody else changes the file's length while this exists.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include "pager/file_store.h"

namespace enchilada {

class HostFile final : public FileStore {
 public:
  /// `descriptor` is open for reading, and for writing if anything is to be written. Null: its size is not to
  /// be had.
  static std::optional<HostFile> attach(int descriptor);
  HostFile(HostFile&& other) noexcept : descriptor_(other.descriptor_), size_(other.size_.load()) {}

  [[nodiscard]] ByteCount size() const override { return ByteCount{size_.load(std::memory_order_relaxed)}; }
  [[nodiscard]] bool read(ByteCount offset, std::span<std::byte> bytes) override;
  [[nodiscard]] bool write(ByteCount offset, std::span<const std::byte> bytes) override;
  [[nodiscard]] bool resize(ByteCount size) override;

 private:
  HostFile(int descriptor, std::uint64_t size) : descriptor_(descriptor), size_(size) {}
  int descriptor_;
  std::atomic<std::uint64_t> size_;
};

}  // namespace enchilada
