/** @file
 * Enchilada for C: memory larger than RAM, and regions that fork, snapshot and roll back. The same as
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

typedef struct enchilada_vm enchilada_vm;             /**< enchilada::Vm */
typedef struct enchilada_region enchilada_region;     /**< enchilada::Region */
typedef struct enchilada_snapshot enchilada_snapshot; /**< enchilada::Snapshot */

/** A range of pages of a region. */
typedef struct enchilada_range {
  uint64_t offset; /**< bytes from the start of the region */
  uint64_t bytes;  /**< a multiple of the page size */
} enchilada_range;

/** What a Vm holds, in bytes. */
typedef struct enchilada_statistics {
  uint64_t ram_bytes;       /**< the budget */
  uint64_t resident_bytes;  /**< frames in use */
  uint64_t swap_used_bytes; /**< of all swap places */
  uint64_t swap_bytes;      /**< capacity */
  uint64_t metadata_bytes;  /**< what the VM system itself needs */
  uint64_t objects;         /**< VM objects alive (a number) */
} enchilada_statistics;

/** How memory will be used. */
enum enchilada_advice {
  ENCHILADA_NORMAL,     /**< nothing special */
  ENCHILADA_SEQUENTIAL, /**< in order */
  ENCHILADA_RANDOM,     /**< in no order */
  ENCHILADA_WILLNEED,   /**< soon */
  ENCHILADA_DONTNEED    /**< soon not; contents stay */
};

/** Why the calling thread's last call that failed did: one line; never NULL. */
const char* enchilada_last_error(void);

/** Makes a Vm. swap_directory: NULL for the default place; swap_bytes: 0 for the default size. */
enchilada_vm* enchilada_vm_new(uint64_t ram_bytes, const char* swap_directory, uint64_t swap_bytes);
/** Gives it back; regions and snapshots that are left keep what they need. */
void enchilada_vm_free(enchilada_vm* vm);
/** Fills `all`. */
int enchilada_vm_statistics(enchilada_vm* vm, enchilada_statistics* all);
/** The value of one counter by name (docs/stats.md); 0 when there is none of that name. */
uint64_t enchilada_vm_counter(enchilada_vm* vm, const char* name);

/** Zeroed memory. capacity: how far resize may go; 0 for `bytes`. */
enchilada_region* enchilada_map(enchilada_vm* vm, uint64_t bytes, uint64_t capacity);
/** Unmaps a region; its snapshots stay. */
void enchilada_region_free(enchilada_region* region);
/** Its first byte; page aligned. */
void* enchilada_data(const enchilada_region* region);
/** Its size in bytes. */
uint64_t enchilada_size(const enchilada_region* region);

/** A second region with the same contents, copy-on-write both ways. */
enchilada_region* enchilada_fork(const enchilada_region* region);
/** Marks the contents; copies nothing. */
enchilada_snapshot* enchilada_take_snapshot(const enchilada_region* region);
/** Drops a snapshot. */
void enchilada_snapshot_free(enchilada_snapshot* snapshot);
/** A new region with a snapshot's contents. */
enchilada_region* enchilada_branch(const enchilada_snapshot* snapshot);
/** Back to what the snapshot holds, the size too. */
int enchilada_rollback(enchilada_region* region, const enchilada_snapshot* snapshot);
/** Pages written or discarded since: writes up to `most` ranges; returns how many there are, or -1. */
int64_t enchilada_diff(const enchilada_region* region, const enchilada_snapshot* snapshot,
                       enchilada_range* ranges, size_t most);

/** Says how a range will be used. */
int enchilada_advise(enchilada_region* region, uint64_t offset, uint64_t bytes, enum enchilada_advice advice);
/** The range becomes zeros; its memory and swap are freed. */
int enchilada_discard(enchilada_region* region, uint64_t offset, uint64_t bytes);
/** Keeps the range resident, so that system calls may use it, until unpin. Does not nest. */
int enchilada_pin(enchilada_region* region, uint64_t offset, uint64_t bytes);
/** Ends a pin of the same range. */
int enchilada_unpin(enchilada_region* region, uint64_t offset, uint64_t bytes);
/** Changes the size, up to the capacity; what is new is zero. */
int enchilada_resize(enchilada_region* region, uint64_t bytes);

#ifdef __cplusplus
}
#endif
