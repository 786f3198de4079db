// Helpers for tests of the process tree: child processes, and the state that must come back after any death.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>

#include "runtime/tree/process_tree.h"
#include "runtime/tree/tree_words.h"

namespace enchilada::test {

/// A tree of this test; unmapped at the end, so that the next one can have the address.
class TestTree {
 public:
  explicit TestTree(std::uint64_t frames, std::uint64_t minimum = 16) {
    TreeConfig config;
    config.ram_frames = frames;
    config.minimum_frames = minimum;
    EXPECT_EQ(tree.create(config, -1), TreeStatus::kOk);
  }
  ~TestTree() {
    close(tree.header().segment_descriptor);
    munmap(reinterpret_cast<void*>(kTreeAddress), tree.header().segment_bytes);
  }
  TestTree(const TestTree&) = delete;
  TestTree& operator=(const TestTree&) = delete;

  [[nodiscard]] std::uint64_t free_slots() const {
    std::uint64_t n = 0;
    for (std::uint32_t i = 0; i < kMaxProcesses; ++i) {
      n += words::owner_state(tree.slot(ProcessSlot{i}).owner.load()) == SlotState::kFree ? 1 : 0;
    }
    return n;
  }
  [[nodiscard]] std::uint64_t all_charges() const {
    std::uint64_t n = 0;
    for (std::uint32_t i = 0; i < kMaxProcesses; ++i) n += tree.charged(ProcessSlot{i}).value();
    return n;
  }
  /// Every frame is back and every slot free.
  void expect_as_new() const {
    EXPECT_EQ(tree.available().value(), tree.config().ram_frames);
    EXPECT_EQ(all_charges(), 0u);
    EXPECT_EQ(free_slots(), kMaxProcesses);
  }

  ProcessTree tree;
};

/// Runs `body` in a child that ends with its return value.
template <class Body>
pid_t spawn(Body body) {
  const pid_t pid = fork();
  if (pid == 0) _exit(body());
  return pid;
}

inline int wait_status(pid_t pid) {
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return status;
}

inline void kill_and_reap(pid_t pid) {
  kill(pid, SIGKILL);
  wait_status(pid);
}

}  // namespace enchilada::test
