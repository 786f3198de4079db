// What every probe needs: registration, EXPECT, patterns for memory, and push_out(), which gets memory paged
// out.
//
// A probe is a small program about one rule of the live runtime. It runs natively first (and must pass there:
// it tests what Linux promises), then under `enchilada run` with little memory. It prints OK, or where and
// why it failed.
//   PROBE(name) { ... }                an ordinary probe: ends by returning
//   PROBE_CALM(name) { ... }           the same, but too small to be paged out, so no page-outs are demanded
//   of the run PROBE_DIES(name, SIGSEGV) { ... }  must end by this signal, natively and managed
#pragma once

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace probe {

struct Entry {
  const char* name;
  void (*body)();
  const char* kind;  // "paged", "calm" or "dies"
  Entry* next;
  Entry(const char* name, void (*body)(), const char* kind);
};

/// A mode in which a probe starts itself anew: `probe_x --child NAME args...`. Returns the exit status.
struct ChildMode {
  const char* name;
  int (*body)(int argc, char** argv);
  ChildMode* next;
  ChildMode(const char* name, int (*body)(int argc, char** argv));
};

[[noreturn]] void fail(const char* file, int line, const char* what);
[[noreturn]] void fail_values(const char* file, int line, const char* what, long long a, long long b);

/// The memory that the run under enchilada has (ENCHILADA_PROBE_RAM, in MiB; 16 MiB where unset).
size_t ram();
/// Running under enchilada (ENCHILADA_PROBE_LIVE is set).
bool live();
/// Touches (writes, then reads) three times ram() of other memory, so that what was there before is paged
/// out.
void push_out();
/// The same with less: half of ram(), for places that do it often.
void stir();

/// Every 8-byte word gets a value that depends on its place and the seed.
void fill(void* at, size_t bytes, uint64_t seed);
/// The first wrong offset, or -1. Async-signal-safe.
ssize_t first_wrong(const void* at, size_t bytes, uint64_t seed);
/// The first byte that is not zero, or -1.
ssize_t first_nonzero(const void* at, size_t bytes);
/// Anonymous private memory, readable and writable; never null.
char* map(size_t bytes);
/// malloc that never returns null.
char* heap(size_t bytes);
/// A heap object with this content, paged out by the next push_out().
template <typename T>
T* on_heap(const T& value = T{}) {
  T* at = reinterpret_cast<T*>(heap(sizeof(T) < 64 ? 64 : sizeof(T)));
  *at = value;
  return at;
}
char* heap_string(const std::string& text);
/// argv as programs have it: an array on the heap of strings on the heap.
char** heap_argv(const std::vector<std::string>& words);

/// A coroutine with a stack of managed memory, to be entered with swapcontext(); returns to `back` at its
/// end.
void make_coroutine(ucontext_t& coroutine, ucontext_t& back, size_t stack_bytes, void (*body)());

/// Waits for the child and demands exit status 0.
void expect_child_ok(pid_t child, const char* file, int line);
/// Waits until a process that is not our child has ended (or is a zombie that others must reap).
void wait_until_gone(pid_t pid);
/// A file of its own, opened read-write and already removed from its folder.
int scratch_file();
/// The folder for scratch files (TMPDIR, else /tmp).
std::string scratch_folder();
/// What exec'd children do: 2 x ram() of memory, filled, paged out, checked. Returns an exit status. Every
/// probe program has it as `--child work SEED`; `--child exec DEPTH` comes to it after some execs.
int work_in_child(uint64_t seed);
/// This program, for exec'ing a ChildMode.
const char* self_path();
double now();

}  // namespace probe

#define PROBE_OF_KIND(name, kind)                                         \
  static void probe_body_##name();                                        \
  static probe::Entry probe_entry_##name(#name, probe_body_##name, kind); \
  static void probe_body_##name()
#define PROBE(name) PROBE_OF_KIND(name, "paged")
#define PROBE_CALM(name) PROBE_OF_KIND(name, "calm")
#define PROBE_DIES(name, signal) PROBE_OF_KIND(name, "dies " #signal)
#define CHILD_MODE(name)                                           \
  static int child_##name(int argc, char** argv);                  \
  static probe::ChildMode child_entry_##name(#name, child_##name); \
  static int child_##name([[maybe_unused]] int argc, [[maybe_unused]] char** argv)

#define EXPECT(...)                                                    \
  do {                                                                 \
    if (!(__VA_ARGS__)) probe::fail(__FILE__, __LINE__, #__VA_ARGS__); \
  } while (0)
#define EXPECT_EQ(a, b)                                                                          \
  do {                                                                                           \
    const auto left_ = (a);                                                                      \
    const auto right_ = (b);                                                                     \
    if (!(left_ == right_))                                                                      \
      probe::fail_values(__FILE__, __LINE__, #a " == " #b, (long long)left_, (long long)right_); \
  } while (0)
#define EXPECT_PATTERN(at, bytes, seed) EXPECT_EQ(probe::first_wrong(at, bytes, seed), (ssize_t)-1)
#define EXPECT_ZEROS(at, bytes) EXPECT_EQ(probe::first_nonzero(at, bytes), (ssize_t)-1)
#define EXPECT_CHILD_OK(child) probe::expect_child_ok(child, __FILE__, __LINE__)
