// The pv chunk of today's FreeBSD (sys/amd64/amd64/pmap.h, struct pv_chunk): a page of entries with one
// owner. Invariant: a bit of `free` is set exactly for the entries that are not in use.
#pragma once

#include <array>
#include <bit>

#include "pmap/soft/pv_pool.h"

namespace enchilada {

struct PvChunk {
  static constexpr unsigned kEntries = 168;

  TableFamily* owner = nullptr;
  ListLink<PvChunk> in_owner;
  ListLink<PvChunk> lru;  // all chunks of the machine, or the free ones
  std::array<std::uint64_t, 3> free{};
  std::array<PvEntry, kEntries> entries{};

  [[nodiscard]] unsigned free_count() const {
    unsigned n = 0;
    for (const std::uint64_t word : free) n += static_cast<unsigned>(std::popcount(word));
    return n;
  }
  [[nodiscard]] bool is_free(unsigned i) const { return (free[i / 64] >> (i % 64) & 1) != 0; }
  /// The chunk of an entry: chunks are aligned to their size.
  static PvChunk& of(const PvEntry* pv) {
    return *reinterpret_cast<PvChunk*>(reinterpret_cast<std::uintptr_t>(pv) & ~(kPageSize - 1));
  }
};
static_assert(sizeof(PvChunk) == kPageSize);
using PvChunkList = IntrusiveList<PvChunk, &PvChunk::in_owner>;

}  // namespace enchilada
