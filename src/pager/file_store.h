// FileStore: the bytes of one file, as the file pager needs them. In memory for simulated machines and tests
// (memory_file.h), a real file (host_file.h).
//
// Invariants: size() is what the last successful resize() made it; read and write stay within it; a failed
// write may have changed any of the bytes it was about, and no other. Thread-safe.
#pragma once

#include <cstddef>
#include <span>

#include "base/units.h"

namespace enchilada {

class FileStore {
 public:
  virtual ~FileStore() = default;

  [[nodiscard]] virtual ByteCount size() const = 0;
  /// offset + bytes.size() <= size(). False: I/O error.
  [[nodiscard]] virtual bool read(ByteCount offset, std::span<std::byte> bytes) = 0;
  [[nodiscard]] virtual bool write(ByteCount offset, std::span<const std::byte> bytes) = 0;
  /// What is added reads as zeros. False: the size is as it was.
  [[nodiscard]] virtual bool resize(ByteCount size) = 0;
};

}  // namespace enchilada
