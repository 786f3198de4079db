// VmSpace: a process's hold on an address space. Several processes may hold the same one (rfork(2) with
// RFMEM, vfork(2)): then they have one map, one pmap, and every change is everybody's; the last to leave
// frees it.
//
// FreeBSD's struct vmspace with its reference count; sharing whole spaces is what the mails of 2000 call the
// solved half of shared page tables. Invariant: a process holds exactly one space. Not thread-safe by itself
// (a process changes its own hold); the map is.
#pragma once

#include <memory>

#include "vm/vm_map.h"

namespace enchilada {

class VmSpace {
 public:
  explicit VmSpace(std::unique_ptr<VmMap> map) : map_(std::move(map)) {}

  [[nodiscard]] VmMap& map() const { return *map_; }
  /// rfork(RFPROC | RFMEM): a hold on the same space for another process.
  [[nodiscard]] VmSpace share() const { return VmSpace(map_); }
  /// Processes that hold it.
  [[nodiscard]] long users() const { return map_.use_count(); }
  /// vmspace_unshare(): this process gets a copy (as by fork) if others hold the space too. False: no
  /// resources, nothing changed.
  [[nodiscard]] bool unshare() {
    if (users() == 1) return true;
    std::unique_ptr<VmMap> own = map_->fork();
    if (own == nullptr) return false;
    map_ = std::move(own);
    return true;
  }
  /// execve(2): another space instead; the others keep theirs.
  void replace(std::unique_ptr<VmMap> fresh) { map_ = std::move(fresh); }

 private:
  explicit VmSpace(std::shared_ptr<VmMap> map) : map_(std::move(map)) {}
  std::shared_ptr<VmMap> map_;
};

}  // namespace enchilada
