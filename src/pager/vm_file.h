// VmFile: a file as the users of an engine hold it: its store and the one object with the pages of it that
// are in memory, which all mappings share (the page cache).
//
// Invariants: one VmFile a file; it holds a reference, so pages stay in memory while nobody maps them; the
// store, the pager and the engine outlive the last mapping, which may outlive the VmFile.
#pragma once

#include <memory>

#include "base/mutex.h"
#include "pager/file_pager.h"
#include "vm/vm_map.h"
#include "vm/vm_object.h"

namespace enchilada {

class VmFile {
 public:
  /// Null: no metadata left.
  static std::unique_ptr<VmFile> open(VmSystem& system, FilePager& pager, FileStore& store);
  /// Writes what is dirty, unless the file is still mapped: then the last unmapping does.
  ~VmFile();
  VmFile(const VmFile&) = delete;
  VmFile& operator=(const VmFile&) = delete;

  [[nodiscard]] VmObject& object() { return object_; }
  [[nodiscard]] ByteCount size() const { return store_.size(); }
  [[nodiscard]] PageCount resident();
  /// ftruncate(2), both ways (VmObjectZone::resize_file()).
  KernReturn resize(ByteCount size);
  /// fsync(2). kFailure: something could not be written, and stays dirty in memory.
  KernReturn sync();
  /// Writes what is dirty and frees the pages that are clean and not wired, mapped or not.
  KernReturn drop_cache();
  /// A request to map `length` bytes from `offset` (page aligned) on.
  [[nodiscard]] VmMap::MapRequest mapping(ByteCount offset, ByteCount length, bool shared);

 private:
  VmFile(VmSystem& system, FileStore& store, VmObject& object)
      : system_(system), store_(store), object_(object) {}
  KernReturn clean(VmObjectZone::Clean how);
  VmSystem& system_;
  FileStore& store_;
  VmObject& object_;
  Mutex resizing_;  // unranked: one change of length at a time
};

}  // namespace enchilada
