// VmFile: calls of the engine's file operations. Invariants: see vm_file.h.
#include "pager/vm_file.h"

#include "base/check.h"

namespace enchilada {

std::unique_ptr<VmFile> VmFile::open(VmSystem& system, FilePager& pager, FileStore& store) {
  VmObject* const object = system.objects().allocate_file(pager, FilePager::handle_of(store));
  if (object == nullptr) return nullptr;
  return std::unique_ptr<VmFile>(new VmFile(system, store, *object));
}

VmFile::~VmFile() {
  system_.objects().deallocate(&object_);
}

PageCount VmFile::resident() {
  const ReadLock guard(object_.lock);
  return PageCount{object_.pages.count()};
}

KernReturn VmFile::resize(ByteCount size) {
  const MutexLock guard(resizing_);
  return system_.objects().resize_file(object_, size);
}

KernReturn VmFile::clean(VmObjectZone::Clean how) {
  return system_.objects().clean(object_, PageIndex{0}, PageIndex{~std::uint64_t{0}}, how);
}

KernReturn VmFile::sync() {
  return clean(VmObjectZone::Clean::kKeep);
}

KernReturn VmFile::drop_cache() {
  return clean(VmObjectZone::Clean::kInvalidate);
}

VmMap::MapRequest VmFile::mapping(ByteCount offset, ByteCount length, bool shared) {
  CHECK((offset.value() & kPageMask) == 0, offset.value());
  VmMap::MapRequest request;
  request.length = length;
  request.object = &object_;
  request.offset = PageIndex{offset.value() >> kPageShift};
  request.shared = shared;
  return request;
}

}  // namespace enchilada
