// The pool of page-table pages: one aligned block of the arena and a free list.
#include "pmap/soft/table_pool.h"

#include <new>

namespace enchilada {

TablePool::TablePool(Arena& arena, PageCount tables) {
  const std::size_t wanted = static_cast<std::size_t>(tables.value());
  auto* raw = static_cast<std::byte*>(arena.allocate((wanted + 1) * kPageSize));
  infos_ = arena.allocate_array<TableInfo>(wanted);
  if (raw == nullptr || infos_ == nullptr) return;
  // Page aligned, as the hardware demands and slot_in_table() uses; the arena's memory is zero already.
  const auto address = (reinterpret_cast<std::uintptr_t>(raw) + kPageMask) & ~std::uintptr_t{kPageMask};
  entries_ = reinterpret_cast<x86::Pte*>(address);
  size_ = wanted;
  MutexLock guard(lock_);
  for (std::size_t i = 0; i < size_; ++i) {
    TableInfo* info = new (&infos_[i]) TableInfo;
    info->self = static_cast<TableIndex>(i);
    free_.push_back(info);
  }
}

bool TablePool::take(std::span<TableIndex> out) {
  MutexLock guard(lock_);
  if (free_.size() < out.size()) return false;
  for (TableIndex& table : out) table = free_.pop_front()->self;
  return true;
}

void TablePool::give(TableIndex table) {
  TableInfo& info = infos_[table];
  DCHECK(info.used == 0 && info.wired == 0, table, info.used);
  info.family = nullptr;
  info.users = 0;
  info.parent = kNoTable;
  info.promoted = false;
  info.write_protected = false;
  MutexLock guard(lock_);
  free_.push_front(&info);
}

std::size_t TablePool::free_count() const {
  MutexLock guard(lock_);
  return free_.size();
}

}  // namespace enchilada
