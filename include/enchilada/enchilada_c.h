/* Enchilada for C: memory larger than RAM, and regions that fork, snapshot and roll back. The same as
 * enchilada.h, which says what each thing means, what it costs and what threads may do.
 *
 * Functions that make something return NULL, others nonzero, when they fail; enchilada_last_error() then says
 * why (of the calling thread, until its next call that fails). What was made is given back with its _free
 * function, in any order. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct enchilada_vm enchilada_vm;
typedef struct enchilada_region enchilada_region;
typedef struct enchilada_snapshot enchilada_snapshot;

typedef struct enchilada_range {
  uint64_t offset; /* bytes from the start of the region */
  uint64_t bytes;
} enchilada_range;

typedef struct enchilada_statistics {
  uint64_t ram_bytes;
  uint64_t resident_bytes;
  uint64_t swap_used_bytes;
  uint64_t swap_bytes;
  uint64_t metadata_bytes;
  uint64_t objects;
} enchilada_statistics;

enum enchilada_advice {
  ENCHILADA_NORMAL,
  ENCHILADA_SEQUENTIAL,
  ENCHILADA_RANDOM,
  ENCHILADA_WILLNEED,
  ENCHILADA_DONTNEED
};

/* One line; never NULL. */
const char* enchilada_last_error(void);

/* swap_directory: NULL for the default place; swap_bytes: 0 for the default size. */
enchilada_vm* enchilada_vm_new(uint64_t ram_bytes, const char* swap_directory, uint64_t swap_bytes);
void enchilada_vm_free(enchilada_vm* vm);
int enchilada_vm_statistics(enchilada_vm* vm, enchilada_statistics* all);
/* The value of one counter by name (docs/stats.md); 0 when there is none of that name. */
uint64_t enchilada_vm_counter(enchilada_vm* vm, const char* name);

/* capacity: how far resize may go; 0 for `bytes`. */
enchilada_region* enchilada_map(enchilada_vm* vm, uint64_t bytes, uint64_t capacity);
void enchilada_region_free(enchilada_region* region);
void* enchilada_data(const enchilada_region* region);
uint64_t enchilada_size(const enchilada_region* region);

enchilada_region* enchilada_fork(const enchilada_region* region);
enchilada_snapshot* enchilada_take_snapshot(const enchilada_region* region);
void enchilada_snapshot_free(enchilada_snapshot* snapshot);
enchilada_region* enchilada_branch(const enchilada_snapshot* snapshot);
int enchilada_rollback(enchilada_region* region, const enchilada_snapshot* snapshot);
/* Writes up to `most` ranges; returns how many there are, or -1. */
int64_t enchilada_diff(const enchilada_region* region, const enchilada_snapshot* snapshot,
                       enchilada_range* ranges, size_t most);

int enchilada_advise(enchilada_region* region, uint64_t offset, uint64_t bytes, enum enchilada_advice advice);
int enchilada_discard(enchilada_region* region, uint64_t offset, uint64_t bytes);
int enchilada_pin(enchilada_region* region, uint64_t offset, uint64_t bytes);
int enchilada_unpin(enchilada_region* region, uint64_t offset, uint64_t bytes);
int enchilada_resize(enchilada_region* region, uint64_t bytes);

#ifdef __cplusplus
}
#endif
