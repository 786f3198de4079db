// The C API: handles are the C++ objects on the heap; errors are kept for the thread that caused them.
#include <algorithm>
#include <new>
#include <string>
#include <utility>

#include "enchilada/enchilada.h"
#include "enchilada/enchilada_c.h"

struct enchilada_vm {
  enchilada::Vm vm;
};
struct enchilada_region {
  enchilada::Region region;
};
struct enchilada_snapshot {
  enchilada::Snapshot snapshot;
};

namespace {

thread_local std::string last_error = "no error";

int fail(const enchilada::Error& error) {
  last_error = error.message;
  return -1;
}

int missing(const char* what) {
  last_error = std::string(what) + " is NULL";
  return -1;
}

/// A handle for what was made, or NULL.
template <class Handle, class T>
Handle* handle_of(enchilada::Expected<T> made) {
  if (!made) {
    fail(made.error());
    return nullptr;
  }
  return new Handle{std::move(made.value())};
}

int done(const enchilada::Status& status) {
  return status ? 0 : fail(status.error());
}

}  // namespace

const char* enchilada_last_error(void) {
  return last_error.c_str();
}

enchilada_vm* enchilada_vm_new(uint64_t ram_bytes, const char* swap_directory, uint64_t swap_bytes) {
  enchilada::VmOptions options;
  options.ram_bytes = ram_bytes;
  options.swap = {{swap_directory == nullptr ? "" : swap_directory, swap_bytes}};
  return handle_of<enchilada_vm>(enchilada::Vm::create(options));
}

void enchilada_vm_free(enchilada_vm* vm) {
  delete vm;
}

int enchilada_vm_statistics(enchilada_vm* vm, enchilada_statistics* all) {
  if (vm == nullptr || all == nullptr) return missing("vm or statistics");
  const auto s = vm->vm.statistics();
  if (!s) return fail(s.error());
  *all = {s.value().ram_bytes,  s.value().resident_bytes, s.value().swap_used_bytes,
          s.value().swap_bytes, s.value().metadata_bytes, s.value().objects};
  return 0;
}

uint64_t enchilada_vm_counter(enchilada_vm* vm, const char* name) {
  if (vm == nullptr || name == nullptr) return 0;
  const auto s = vm->vm.statistics();
  if (!s) return 0;
  for (const auto& [counter, value] : s.value().counters) {
    if (counter == name) return value;
  }
  return 0;
}

enchilada_region* enchilada_map(enchilada_vm* vm, uint64_t bytes, uint64_t capacity) {
  if (vm == nullptr) {
    missing("vm");
    return nullptr;
  }
  return handle_of<enchilada_region>(vm->vm.map(bytes, {.capacity = capacity}));
}

void enchilada_region_free(enchilada_region* region) {
  delete region;
}

void* enchilada_data(const enchilada_region* region) {
  return region == nullptr ? nullptr : region->region.data();
}

uint64_t enchilada_size(const enchilada_region* region) {
  return region == nullptr ? 0 : region->region.size();
}

enchilada_region* enchilada_fork(const enchilada_region* region) {
  if (region == nullptr) {
    missing("region");
    return nullptr;
  }
  return handle_of<enchilada_region>(region->region.fork());
}

enchilada_snapshot* enchilada_take_snapshot(const enchilada_region* region) {
  if (region == nullptr) {
    missing("region");
    return nullptr;
  }
  return handle_of<enchilada_snapshot>(region->region.snapshot());
}

void enchilada_snapshot_free(enchilada_snapshot* snapshot) {
  delete snapshot;
}

enchilada_region* enchilada_branch(const enchilada_snapshot* snapshot) {
  if (snapshot == nullptr) {
    missing("snapshot");
    return nullptr;
  }
  return handle_of<enchilada_region>(snapshot->snapshot.branch());
}

int enchilada_rollback(enchilada_region* region, const enchilada_snapshot* snapshot) {
  if (region == nullptr || snapshot == nullptr) return missing("region or snapshot");
  return done(region->region.rollback(snapshot->snapshot));
}

int64_t enchilada_diff(const enchilada_region* region, const enchilada_snapshot* snapshot,
                       enchilada_range* ranges, size_t most) {
  if (region == nullptr || snapshot == nullptr || (ranges == nullptr && most != 0)) {
    return missing("region, snapshot or ranges");
  }
  const auto changes = region->region.diff(snapshot->snapshot);
  if (!changes) return fail(changes.error());
  const size_t n = std::min(most, changes.value().size());
  for (size_t i = 0; i < n; ++i) ranges[i] = {changes.value()[i].offset, changes.value()[i].bytes};
  return static_cast<int64_t>(changes.value().size());
}

int enchilada_advise(enchilada_region* region, uint64_t offset, uint64_t bytes,
                     enum enchilada_advice advice) {
  using Advice = enchilada::Region::Advice;
  if (region == nullptr) return missing("region");
  switch (advice) {
    case ENCHILADA_NORMAL:
      return done(region->region.advise(offset, bytes, Advice::kNormal));
    case ENCHILADA_SEQUENTIAL:
      return done(region->region.advise(offset, bytes, Advice::kSequential));
    case ENCHILADA_RANDOM:
      return done(region->region.advise(offset, bytes, Advice::kRandom));
    case ENCHILADA_WILLNEED:
      return done(region->region.advise(offset, bytes, Advice::kWillNeed));
    case ENCHILADA_DONTNEED:
      return done(region->region.advise(offset, bytes, Advice::kDontNeed));
  }
  last_error = "advice: not one of enum enchilada_advice";
  return -1;
}

int enchilada_discard(enchilada_region* region, uint64_t offset, uint64_t bytes) {
  return region == nullptr ? missing("region") : done(region->region.discard(offset, bytes));
}

int enchilada_pin(enchilada_region* region, uint64_t offset, uint64_t bytes) {
  return region == nullptr ? missing("region") : done(region->region.pin(offset, bytes));
}

int enchilada_unpin(enchilada_region* region, uint64_t offset, uint64_t bytes) {
  return region == nullptr ? missing("region") : done(region->region.unpin(offset, bytes));
}

int enchilada_resize(enchilada_region* region, uint64_t bytes) {
  return region == nullptr ? missing("region") : done(region->region.resize(bytes));
}
