// Probes of the memory calls: mmap and its flags, munmap, mremap, mprotect, madvise, mlock, mincore, brk,
// limits.
#include <fcntl.h>
#include <setjmp.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <vector>

#include "probe.h"

using namespace probe;

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kMiB = size_t{1} << 20;

sigjmp_buf escape;
volatile uintptr_t fault_address;
volatile int fault_code;
volatile int fault_signal;

void note_and_escape(int signal, siginfo_t* info, void*) {
  fault_signal = signal;
  fault_address = reinterpret_cast<uintptr_t>(info->si_addr);
  fault_code = info->si_code;
  siglongjmp(escape, 1);
}

void catch_faults() {
  struct sigaction action = {};
  action.sa_sigaction = note_and_escape;
  action.sa_flags = SA_SIGINFO;
  EXPECT(sigaction(SIGSEGV, &action, nullptr) == 0);
  EXPECT(sigaction(SIGBUS, &action, nullptr) == 0);
}

/// The signal that touching `at` gives (0: none); code and address land in fault_*.
int touch_faults(volatile char* at, bool write) {
  fault_signal = 0;
  if (sigsetjmp(escape, 1) == 0) {
    if (write) {
      *at = 1;
    } else {
      (void)*at;
    }
  }
  return fault_signal;
}

void expect_fault(char* at, bool write, int code) {
  EXPECT_EQ(touch_faults(at, write), SIGSEGV);
  EXPECT_EQ(fault_address, reinterpret_cast<uintptr_t>(at));
  EXPECT_EQ(static_cast<int>(fault_code), code);
}

}  // namespace

PROBE(fill_and_check) {
  const size_t bytes = 4 * ram();
  char* a = map(bytes);
  char* b = heap(bytes);
  fill(a, bytes, 1);
  fill(b, bytes, 2);
  EXPECT_PATTERN(a, bytes, 1);
  EXPECT_PATTERN(b, bytes, 2);
  // Backwards, writing every third page.
  for (size_t i = bytes; i >= 3 * kPage; i -= 3 * kPage) fill(a + i - kPage, kPage, i);
  for (size_t i = bytes; i >= 3 * kPage; i -= 3 * kPage) EXPECT_PATTERN(a + i - kPage, kPage, i);
  EXPECT_PATTERN(b, bytes, 2);
  free(b);
  EXPECT(munmap(a, bytes) == 0);
}

PROBE(fresh_memory_is_zero) {
  push_out();
  for (int round = 0; round < 6; round++) {
    char* p = map(ram());
    EXPECT_ZEROS(p, ram());
    fill(p, ram(), 5);
    EXPECT(munmap(p, ram()) == 0);
  }
}

PROBE(mprotect_guard_pages) {
  const size_t count = 2 * ram() / kPage;
  char* p = map(count * kPage);
  fill(p, count * kPage, 3);
  for (size_t i = 1; i < count; i += 2) EXPECT(mprotect(p + i * kPage, kPage, PROT_NONE) == 0);
  push_out();
  catch_faults();
  for (size_t i = 0; i < count; i += 97) {
    if (i % 2) {
      expect_fault(p + i * kPage + 8, i % 4 == 1, SEGV_ACCERR);
    } else {
      EXPECT_EQ(touch_faults(p + i * kPage, false), 0);
    }
  }
  for (size_t i = 1; i < count; i += 2) EXPECT(mprotect(p + i * kPage, kPage, PROT_READ | PROT_WRITE) == 0);
  EXPECT_PATTERN(p, count * kPage, 3);
}

PROBE(write_to_readonly_is_accerr) {
  char* p = map(4 * kMiB);
  fill(p, 4 * kMiB, 4);
  EXPECT(mprotect(p, 4 * kMiB, PROT_READ) == 0);
  push_out();
  catch_faults();
  expect_fault(p + 12345, true, SEGV_ACCERR);  // while out
  EXPECT_PATTERN(p, 4 * kMiB, 4);
  expect_fault(p + 12345, true, SEGV_ACCERR);  // while in
  EXPECT(mprotect(p, 4 * kMiB, PROT_READ | PROT_WRITE) == 0);
  EXPECT_EQ(touch_faults(p + 12345, true), 0);
  EXPECT_EQ(p[12345], 1);
}

PROBE(readonly_from_the_start_reads_zero) {
  char* p = static_cast<char*>(mmap(nullptr, kMiB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  EXPECT(p != MAP_FAILED);
  push_out();
  EXPECT_ZEROS(p, kMiB);
  catch_faults();
  expect_fault(p + 4097, true, SEGV_ACCERR);
  EXPECT(mprotect(p, kMiB, PROT_READ | PROT_WRITE) == 0);
  EXPECT_ZEROS(p, kMiB);
  fill(p, kMiB, 6);
  push_out();
  EXPECT_PATTERN(p, kMiB, 6);
}

PROBE(reservation_made_executable) {  // as V8 does: nobody could read it before, and what is there stays
  const size_t reserved = 64 * kMiB;
  char* p = static_cast<char*>(
      mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  EXPECT(p != MAP_FAILED);
  EXPECT(mprotect(p, 4 * kMiB, PROT_READ | PROT_WRITE) == 0);
  fill(p, 4 * kMiB, 3);
  push_out();
  EXPECT(mprotect(p, 4 * kMiB, PROT_NONE) == 0);
  constexpr int kAll = PROT_READ | PROT_WRITE | PROT_EXEC;
  EXPECT(mprotect(p, 8 * kMiB, kAll) == 0);
  EXPECT_PATTERN(p, 4 * kMiB, 3);
  EXPECT_ZEROS(p + 4 * kMiB, 4 * kMiB);
  p[5 * kMiB] = static_cast<char>(0xc3);  // ret
  reinterpret_cast<void (*)()>(p + 5 * kMiB)();
  catch_faults();
  expect_fault(p + 9 * kMiB, false, SEGV_ACCERR);
  EXPECT(munmap(p, reserved) == 0);
  errno = 0;
  EXPECT(mprotect(p, kMiB, kAll) != 0 && errno == ENOMEM);
}

PROBE(reserve_then_commit) {  // as Java, Go and V8 do
  const size_t reserved = 512 * kMiB;
  char* p = static_cast<char*>(
      mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  EXPECT(p != MAP_FAILED);
  catch_faults();
  expect_fault(p + 5 * kMiB, false, SEGV_ACCERR);
  for (size_t at = 0; at < reserved; at += 64 * kMiB) {
    EXPECT(mprotect(p + at, 6 * kMiB, PROT_READ | PROT_WRITE) == 0);
    fill(p + at, 6 * kMiB, at);
  }
  for (size_t at = 0; at < reserved; at += 64 * kMiB) EXPECT_PATTERN(p + at, 6 * kMiB, at);
  // Decommit one in the way mimalloc does: a fixed mapping without access over it; the others keep their
  // bytes.
  EXPECT(mmap(p + 64 * kMiB, 6 * kMiB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
              0) == p + 64 * kMiB);
  expect_fault(p + 64 * kMiB, false, SEGV_ACCERR);
  EXPECT(mprotect(p + 64 * kMiB, 6 * kMiB, PROT_READ | PROT_WRITE) == 0);
  EXPECT_ZEROS(p + 64 * kMiB, 6 * kMiB);
  EXPECT_PATTERN(p, 6 * kMiB, 0);
  EXPECT_PATTERN(p + 128 * kMiB, 6 * kMiB, 128 * kMiB);
  EXPECT(munmap(p, reserved) == 0);
}

PROBE(madvise_dontneed_gives_zeros) {
  const size_t bytes = 2 * ram();
  char* p = map(bytes);
  fill(p, bytes, 7);  // part of it is paged out by now, part is not
  EXPECT(madvise(p + bytes / 4, bytes / 2, MADV_DONTNEED) == 0);
  EXPECT_PATTERN(p, bytes / 4, 7);
  EXPECT_ZEROS(p + bytes / 4, bytes / 2);
  fill(p + bytes / 4, bytes / 2, 8);
  push_out();
  EXPECT_PATTERN(p + bytes / 4, bytes / 2, 8);
  EXPECT(madvise(p, bytes, MADV_DONTNEED) == 0);
  EXPECT_ZEROS(p, bytes);
}

PROBE(madvise_free_gives_old_or_zero) {
  const size_t bytes = ram();
  char* p = map(bytes);
  fill(p, bytes, 9);
  std::string before(p, bytes);
  EXPECT(madvise(p, bytes, MADV_FREE) == 0);
  push_out();
  for (size_t i = 0; i < bytes; i += kPage) {
    EXPECT(memcmp(p + i, before.data() + i, kPage) == 0 || first_nonzero(p + i, kPage) < 0);
  }
  EXPECT(madvise(p, bytes, MADV_FREE) == 0);
  fill(p, bytes, 10);  // written after MADV_FREE: must stay
  push_out();
  EXPECT_PATTERN(p, bytes, 10);
}

PROBE(madvise_hints_change_nothing) {
  const size_t bytes = 2 * ram();
  char* p = map(bytes);
  fill(p, bytes, 11);
  for (int advice : {MADV_WILLNEED, MADV_SEQUENTIAL, MADV_RANDOM, MADV_NORMAL, MADV_DONTFORK, MADV_DOFORK}) {
    EXPECT(madvise(p + kPage, bytes / 2, advice) == 0);
  }
#ifdef MADV_COLD
  EXPECT(madvise(p, bytes, MADV_COLD) == 0 || errno == EINVAL);
  EXPECT(madvise(p, bytes, MADV_PAGEOUT) == 0 || errno == EINVAL);
#endif
  (void)madvise(p, bytes, MADV_HUGEPAGE);
  (void)madvise(p, bytes, MADV_NOHUGEPAGE);
  push_out();
  EXPECT(madvise(p, bytes, MADV_WILLNEED) == 0);
  EXPECT_PATTERN(p, bytes, 11);
  errno = 0;
  EXPECT(madvise(p + 1, kPage, MADV_NORMAL) == -1 && errno == EINVAL);
}

PROBE(mremap_grow) {
  size_t bytes = kMiB;
  char* p = map(bytes);
  fill(p, bytes, 12);
  while (bytes < 4 * ram()) {
    char* q = static_cast<char*>(mremap(p, bytes, bytes * 2, MREMAP_MAYMOVE));
    EXPECT(q != MAP_FAILED);
    EXPECT_PATTERN(q, bytes, 12);
    EXPECT_ZEROS(q + bytes, bytes);
    bytes *= 2;
    p = q;
    fill(p, bytes, 12);
  }
  push_out();
  EXPECT_PATTERN(p, bytes, 12);
  EXPECT(munmap(p, bytes) == 0);
}

PROBE(mremap_shrink) {
  char* p = map(8 * kMiB);
  fill(p, 8 * kMiB, 13);
  push_out();
  EXPECT(mremap(p, 8 * kMiB, 3 * kMiB, 0) == p);
  EXPECT_PATTERN(p, 3 * kMiB, 13);
  catch_faults();
  expect_fault(p + 3 * kMiB, false, SEGV_MAPERR);
}

PROBE(mremap_fixed_moves) {
  char* p = map(8 * kMiB);
  char* target = map(16 * kMiB);
  fill(p, 8 * kMiB, 14);
  fill(target, 16 * kMiB, 15);
  push_out();
  EXPECT(mremap(p, 8 * kMiB, 8 * kMiB, MREMAP_MAYMOVE | MREMAP_FIXED, target + 4 * kMiB) ==
         target + 4 * kMiB);
  EXPECT_PATTERN(target + 4 * kMiB, 8 * kMiB, 14);
  EXPECT_PATTERN(target, 4 * kMiB, 15);
  catch_faults();
  expect_fault(p, false, SEGV_MAPERR);
  push_out();
  EXPECT_PATTERN(target + 4 * kMiB, 8 * kMiB, 14);
  EXPECT_EQ(first_wrong(target, 4 * kMiB, 15), (ssize_t)-1);
}

PROBE(mremap_in_place_or_enomem) {
  char* p = map(3 * kMiB);
  fill(p, 3 * kMiB, 16);
  push_out();
  errno = 0;  // the second third is taken by the third: growing the first in place cannot work
  EXPECT(mremap(p, kMiB, 2 * kMiB, 0) == MAP_FAILED && errno == ENOMEM);
  EXPECT_PATTERN(p, 3 * kMiB, 16);
  EXPECT(munmap(p + kMiB, 2 * kMiB) == 0);
  char* q = static_cast<char*>(mremap(p, kMiB, 2 * kMiB, MREMAP_MAYMOVE));
  EXPECT(q != MAP_FAILED);
  EXPECT_PATTERN(q, kMiB, 16);
}

PROBE(map_fixed_over_own_memory) {
  char* p = map(8 * kMiB);
  fill(p, 8 * kMiB, 17);
  push_out();
  EXPECT(mmap(p + 2 * kMiB, kMiB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
         p + 2 * kMiB);
  EXPECT_ZEROS(p + 2 * kMiB, kMiB);
  fill(p + 2 * kMiB, kMiB, 18);
  push_out();
  EXPECT_PATTERN(p, 2 * kMiB, 17);
  EXPECT_PATTERN(p + 2 * kMiB, kMiB, 18);
  errno = 0;
  EXPECT(mmap(p, kMiB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED &&
         errno == EEXIST);
}

PROBE(map_fixed_elsewhere) {
  char* const at = reinterpret_cast<char*>(0x20000000);  // far from where any allocator puts things
  const size_t bytes = 2 * ram();
  EXPECT(mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
  fill(at, bytes, 19);
  push_out();
  EXPECT_PATTERN(at, bytes, 19);
  EXPECT(mprotect(at, kPage, PROT_READ) == 0);
  catch_faults();
  expect_fault(at + 8, true, SEGV_ACCERR);
  char* moved = static_cast<char*>(mremap(at, bytes, bytes + kMiB, MREMAP_MAYMOVE));
  EXPECT(moved == MAP_FAILED ||
         first_wrong(moved + kPage, 0, 19) < 0);  // two protections: EFAULT is Linux's answer
  EXPECT(munmap(at, bytes) == 0 || moved != MAP_FAILED);
}

PROBE(file_over_anonymous_and_back) {
  int fd = scratch_file();
  std::string content(kMiB, 'x');
  EXPECT_EQ(write(fd, content.data(), content.size()), static_cast<ssize_t>(kMiB));
  char* p = map(8 * kMiB);
  fill(p, 8 * kMiB, 20);
  push_out();
  EXPECT(mmap(p + 4 * kMiB, kMiB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0) == p + 4 * kMiB);
  EXPECT(memcmp(p + 4 * kMiB, content.data(), kMiB) == 0);
  p[4 * kMiB] = 'y';
  push_out();
  EXPECT(p[4 * kMiB] == 'y' && p[4 * kMiB + 1] == 'x');
  EXPECT_PATTERN(p, 4 * kMiB, 20);
  char byte = 0;
  EXPECT(pread(fd, &byte, 1, 0) == 1 && byte == 'x');  // private: the file keeps its byte
  EXPECT(mmap(p + 4 * kMiB, kMiB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
         p + 4 * kMiB);
  EXPECT_ZEROS(p + 4 * kMiB, kMiB);
  fill(p + 4 * kMiB, kMiB, 21);
  push_out();
  EXPECT_PATTERN(p + 4 * kMiB, kMiB, 21);
  EXPECT_PATTERN(p, 4 * kMiB, 20);
  EXPECT(munmap(p, 8 * kMiB) == 0);
}

PROBE(shared_anonymous_stays_shared) {
  auto* p =
      static_cast<char*>(mmap(nullptr, kMiB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  EXPECT(p != MAP_FAILED);
  fill(p, kMiB, 22);
  push_out();
  pid_t child = fork();
  if (child == 0) {
    if (first_wrong(p, kMiB, 22) >= 0) _exit(3);
    fill(p, kMiB, 23);
    _exit(0);
  }
  EXPECT_CHILD_OK(child);
  EXPECT_PATTERN(p, kMiB, 23);
}

PROBE(munmap_of_parts) {
  const size_t bytes = 2 * ram();
  char* p = map(bytes);
  fill(p, bytes, 24);
  std::string copy(p, kPage);
  for (size_t i = kPage; i < bytes; i += 4 * kPage) EXPECT(munmap(p + i, kPage) == 0);
  push_out();
  catch_faults();
  expect_fault(p + kPage, false, SEGV_MAPERR);
  expect_fault(p + 5 * kPage + 100, true, SEGV_MAPERR);
  EXPECT(memcmp(p, copy.data(), kPage) == 0);
  char* check = map(bytes);
  fill(check, bytes, 24);
  for (size_t i = 2 * kPage; i + 2 * kPage <= bytes; i += 4 * kPage)
    EXPECT(memcmp(p + i, check + i, 2 * kPage) == 0);
  EXPECT(munmap(p, bytes) == 0);  // with holes: allowed
  expect_fault(p, false, SEGV_MAPERR);
}

PROBE(use_after_free_of_a_mapping_is_maperr) {
  char* p = map(64 * kMiB);
  fill(p, 64 * kMiB, 25);
  EXPECT(munmap(p, 64 * kMiB) == 0);
  catch_faults();
  for (size_t i = 0; i < 64 * kMiB; i += 7 * kMiB) expect_fault(p + i, i % 2 == 0, SEGV_MAPERR);
}

PROBE(mlock_keeps_resident) {
  const size_t bytes = 8 * kPage;
  char* p = map(bytes);
  fill(p, bytes, 26);
  push_out();
  if (mlock(p, bytes) != 0) {  // a small RLIMIT_MEMLOCK: nothing to test
    EXPECT(errno == ENOMEM || errno == EPERM);
    return;
  }
  push_out();
  unsigned char resident[8] = {};
  EXPECT(mincore(p, bytes, resident) == 0);
  for (unsigned char r : resident) EXPECT(r & 1);
  EXPECT_PATTERN(p, bytes, 26);
  EXPECT(munlock(p, bytes) == 0);
  push_out();
  EXPECT_PATTERN(p, bytes, 26);
  errno = 0;
  EXPECT(munmap(p, bytes) == 0);
  EXPECT(mlock(p, bytes) == -1 && errno == ENOMEM);
}

PROBE(mincore_answers) {
  const size_t pages = 64;
  char* p = map(pages * kPage);
  auto* vec = reinterpret_cast<unsigned char*>(heap(pages));
  memset(vec, 0xEE, pages);
  push_out();
  EXPECT(mincore(p, pages * kPage, vec) == 0);
  for (size_t i = 0; i < pages; i++) EXPECT_EQ(vec[i] & 1, 0);  // never touched
  fill(p, pages * kPage, 27);
  EXPECT(mincore(p, pages * kPage, vec) == 0);
  for (size_t i = 0; i < pages; i++) EXPECT_EQ(vec[i] & 1, 1);  // just touched
  errno = 0;
  EXPECT(munmap(p, pages * kPage) == 0);
  EXPECT(mincore(p, pages * kPage, vec) == -1 && errno == ENOMEM);
  errno = 0;
  EXPECT(mincore(p + 1, kPage, vec) == -1 && errno == EINVAL);
}

PROBE(one_tebibyte_used_sparsely) {
  const size_t bytes = size_t{1} << 40;
  char* p = static_cast<char*>(
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  EXPECT(p != MAP_FAILED);
  const size_t count = 2 * ram() / kPage;
  auto at = [&](size_t i) { return p + (i * 0x9E3779B97F4A7C15ull >> 24) / kPage % (bytes / kPage) * kPage; };
  for (size_t i = 0; i < count; i++) fill(at(i), 64, reinterpret_cast<uintptr_t>(at(i)));
  push_out();
  for (size_t i = 0; i < count; i++) EXPECT_PATTERN(at(i), 64, reinterpret_cast<uintptr_t>(at(i)));
  EXPECT(madvise(p, bytes, MADV_DONTNEED) == 0);
  for (size_t i = 0; i < count; i += 17) EXPECT_ZEROS(at(i), 64);
  EXPECT(munmap(p, bytes) == 0);
}

PROBE_CALM(bad_arguments_answer_as_linux) {
  char* p = map(4 * kPage);
  errno = 0;
  EXPECT(mmap(nullptr, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EINVAL);
  errno = 0;
  EXPECT(munmap(p + 1, kPage) == -1 && errno == EINVAL);
  errno = 0;
  EXPECT(munmap(p, 0) == -1 && errno == EINVAL);
  errno = 0;
  EXPECT(mprotect(p + 1, kPage, PROT_READ) == -1 && errno == EINVAL);
  errno = 0;
  EXPECT(mremap(p + 1, kPage, 2 * kPage, MREMAP_MAYMOVE) == MAP_FAILED && errno == EINVAL);
  errno = 0;
  EXPECT(mmap(p + 1, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED &&
         errno == EINVAL);
  errno = 0;
  EXPECT(mmap(nullptr, size_t{1} << 62, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED &&
         errno == ENOMEM);
  for (int advice : {-1, 5, 7, 12345}) {
    errno = 0;
    EXPECT(madvise(p, kPage, advice) == -1 && errno == EINVAL);
  }
  for (int protection : {0x40, 0x77, PROT_READ | PROT_GROWSDOWN}) {
    errno = 0;
    EXPECT(mprotect(p, kPage, protection) == -1 && errno == EINVAL);
    p[0] = 1;
  }
  EXPECT(mprotect(p, kPage, PROT_READ) == 0);
  errno = 0;
  EXPECT(madvise(p, kPage, 23 /* MADV_POPULATE_WRITE */) == -1 && errno == EINVAL);
  EXPECT(munmap(p, 4 * kPage) == 0);
  EXPECT(munmap(p, 4 * kPage) == 0);  // nothing there: fine
  errno = 0;
  EXPECT(mprotect(p, kPage, PROT_READ) == -1 && errno == ENOMEM);
  errno = 0;
  EXPECT(madvise(p, kPage, MADV_DONTNEED) == -1 && errno == ENOMEM);
}

PROBE(code_written_then_run) {                            // as a just-in-time compiler does
  const unsigned char code[] = {0x8d, 0x47, 0x2a, 0xc3};  // lea eax, [rdi+42]; ret
  char* p = map(kMiB);
  for (size_t i = 0; i < kMiB; i += kPage) memcpy(p + i, code, sizeof code);
  EXPECT(mprotect(p, kMiB, PROT_READ | PROT_EXEC) == 0);
  push_out();
  for (size_t i = 0; i < kMiB; i += kPage)
    EXPECT_EQ(reinterpret_cast<int (*)(int)>(p + i)(static_cast<int>(i)), static_cast<int>(i) + 42);
  auto* rwx = static_cast<char*>(
      mmap(nullptr, kMiB, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  EXPECT(rwx != MAP_FAILED);
  memcpy(rwx + 100, code, sizeof code);
  push_out();
  EXPECT_EQ(reinterpret_cast<int (*)(int)>(rwx + 100)(1), 43);
  catch_faults();
  expect_fault(p, true, SEGV_ACCERR);
}

PROBE(brk_and_sbrk) {
  char* start = static_cast<char*>(sbrk(0));
  EXPECT(start != reinterpret_cast<char*>(-1));
  EXPECT(sbrk(static_cast<intptr_t>(2 * ram())) == start);
  fill(start, 2 * ram(), 28);
  push_out();
  EXPECT_PATTERN(start, 2 * ram(), 28);
  EXPECT(sbrk(-static_cast<intptr_t>(ram())) == start + 2 * ram());
  EXPECT(sbrk(0) == start + ram());
  catch_faults();
  expect_fault(start + ram() + 2 * kPage, false, SEGV_MAPERR);
  EXPECT_PATTERN(start, ram(), 28);
  EXPECT(brk(start + 2 * ram()) == 0);
  EXPECT_ZEROS(start + ram() + kPage, ram() - kPage);  // given back and taken again: zeros
  EXPECT(brk(start) == 0);
}

PROBE(few_descriptors_allowed) {
  rlimit few{24, 24};
  EXPECT(setrlimit(RLIMIT_NOFILE, &few) == 0);
  std::vector<int> fds;
  int fd;
  while ((fd = open("/dev/null", O_RDONLY)) >= 0) {
    EXPECT(fd < 24);
    fds.push_back(fd);
  }
  EXPECT(errno == EMFILE);
  EXPECT(fds.size() >= 16 && fds.size() <= 21);
  rlimit seen{};
  EXPECT(getrlimit(RLIMIT_NOFILE, &seen) == 0 && seen.rlim_cur == 24 && seen.rlim_max == 24);
  char* p = heap(2 * ram());  // paging needs no new descriptor
  fill(p, 2 * ram(), 29);
  push_out();
  EXPECT_PATTERN(p, 2 * ram(), 29);
  for (int each : fds) EXPECT(close(each) == 0);
  pid_t child = fork();
  if (child == 0) _exit(first_wrong(p, 2 * ram(), 29) >= 0);
  EXPECT_CHILD_OK(child);
}

// A guard that is not one would let a stack run into its neighbour (MADV_GUARD_INSTALL, Linux 6.13).
PROBE(a_guard_guards_or_is_refused) {
  char* p = map(4 * kPage);
  fill(p, 4 * kPage, 5);
  push_out();
  constexpr int kInstall = 102;
  errno = 0;
  if (madvise(p + kPage, kPage, kInstall) != 0) {
    EXPECT(errno == EINVAL);
    EXPECT_PATTERN(p, 4 * kPage, 5);
    return;
  }
  const pid_t child = fork();
  if (child == 0) {
    p[kPage] = 1;
    _exit(0);
  }
  int status = 0;
  EXPECT(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

PROBE(fork_with_every_descriptor_in_use) {
  rlimit few{};
  EXPECT(getrlimit(RLIMIT_NOFILE, &few) == 0);
  few.rlim_cur = 64;
  EXPECT(setrlimit(RLIMIT_NOFILE, &few) == 0);
  char* p = heap(2 * ram());
  fill(p, 2 * ram(), 31);
  while (open("/dev/null", O_RDONLY) >= 0) {
  }
  EXPECT(errno == EMFILE);
  pid_t child = fork();
  if (child == 0) {
    rlimit seen{};
    if (getrlimit(RLIMIT_NOFILE, &seen) != 0 || seen.rlim_cur != 64) _exit(2);
    if (open("/dev/null", O_RDONLY) >= 0) _exit(3);
    _exit(first_wrong(p, 2 * ram(), 31) >= 0);
  }
  EXPECT_CHILD_OK(child);
}

PROBE(address_space_limit) {
  rlimit limit{};
  EXPECT(getrlimit(RLIMIT_AS, &limit) == 0);
  if (limit.rlim_max < (rlim_t{1} << 40)) return;
  limit.rlim_cur = 2048 * kMiB;
  EXPECT(setrlimit(RLIMIT_AS, &limit) == 0);
  errno = 0;
  EXPECT(mmap(nullptr, 4096 * kMiB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
             MAP_FAILED &&
         errno == ENOMEM);
  void* volatile huge = malloc(4096 * kMiB);
  EXPECT(huge == nullptr);
  char* p = heap(2 * ram());  // ordinary use goes on
  fill(p, 2 * ram(), 30);
  push_out();
  EXPECT_PATTERN(p, 2 * ram(), 30);
}

PROBE(a_limit_on_file_sizes_spares_the_memory) {
  signal(SIGXFSZ, SIG_IGN);
  rlimit* limit = on_heap(rlimit{});
  EXPECT(getrlimit(RLIMIT_FSIZE, limit) == 0);
  limit->rlim_cur = 4096;
  EXPECT(setrlimit(RLIMIT_FSIZE, limit) == 0);
  char* p = heap(2 * ram());
  fill(p, 2 * ram(), 31);
  push_out();
  EXPECT_PATTERN(p, 2 * ram(), 31);
  rlimit seen{};
  EXPECT(getrlimit(RLIMIT_FSIZE, &seen) == 0);
  EXPECT_EQ(seen.rlim_cur, 4096u);
  EXPECT_EQ(seen.rlim_max, limit->rlim_max);
  limit->rlim_cur = limit->rlim_max = 8192;
  EXPECT(prlimit(0, RLIMIT_FSIZE, limit, &seen) == 0 && seen.rlim_cur == 4096);
  EXPECT(syscall(SYS_prlimit64, 0, RLIMIT_FSIZE, nullptr, limit) == 0 && limit->rlim_max == 8192);
  limit->rlim_cur = 8193;
  errno = 0;
  EXPECT(setrlimit(RLIMIT_FSIZE, limit) == -1 && errno == EINVAL);
}

PROBE(first_descriptor_is_three) {
  int fd = open("/dev/null", O_RDONLY);
  EXPECT_EQ(fd, 3);
  EXPECT(close(fd) == 0);
  push_out();
  int ends[2];
  EXPECT(pipe(ends) == 0 && ends[0] == 3 && ends[1] == 4);
  EXPECT_EQ(dup(0), 5);
}

namespace {

long major_faults() {
  struct rusage usage = {};
  EXPECT(getrusage(RUSAGE_SELF, &usage) == 0);
  return usage.ru_majflt;
}

/// Has the kernel been told that `at` is read at random ("rr" in /proc/self/smaps)?
bool is_read_singly(const void* at) {
  FILE* list = fopen("/proc/self/smaps", "r");
  EXPECT(list != nullptr);
  char line[512];
  bool inside = false;
  bool found = false;
  while (fgets(line, sizeof line, list) != nullptr) {
    unsigned long start = 0;
    unsigned long end = 0;
    const auto address = reinterpret_cast<unsigned long>(at);
    if (sscanf(line, "%lx-%lx ", &start, &end) == 2) inside = start <= address && address < end;
    if (inside && strncmp(line, "VmFlags:", 8) == 0) found = strstr(line, " rr ") != nullptr;
  }
  fclose(list);
  return found;
}

}  // namespace

// Read-ahead of the program's own files drives out what it brings, where the page cache is small.
PROBE(files_are_read_singly_while_memory_is_short) {
  const size_t bytes = kMiB;
  int fd = scratch_file();
  std::string content(bytes, 'x');
  EXPECT_EQ(write(fd, content.data(), content.size()), static_cast<ssize_t>(bytes));
  EXPECT(fsync(fd) == 0);
  const char* text = static_cast<char*>(mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd, 0));
  EXPECT(text != MAP_FAILED && !is_read_singly(text));
  char* memory = map(4 * ram());
  fill(memory, 4 * ram(), 3);
  const long before = major_faults();
  for (size_t i = 0; i < 4000; ++i) {
    memory[i * 8191 * kPage % (4 * ram())] = 1;
    if (i % 8 != 0) continue;
    EXPECT(madvise(const_cast<char*>(text), bytes, MADV_DONTNEED) == 0);
    EXPECT(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
    EXPECT(text[i % bytes] == 'x');
  }
  const bool from_disk =
      major_faults() - before >= 400;  // else the file is in memory whatever we say (tmpfs)
  if (live()) EXPECT_EQ(is_read_singly(text), from_disk);
  if (live()) EXPECT_EQ(is_read_singly(reinterpret_cast<void*>(&major_faults)), from_disk);
  EXPECT(munmap(memory, 4 * ram()) == 0);
}
