// Processes: fork, exec and spawn of a managed program.
//
// Invariants (live-runtime.md rules 3, 5, 11, 12): a fork happens with the engine quiescent and the child's
// frames charged beforehand; nothing in the child touches the window before it has its own userfaultfd; what
// exec and spawn read (paths, argv, environment) lies outside of the window; every exec'd child is told how
// to join the tree.
#pragma once

namespace enchilada::runtime {

/// Once, early: registers the fork handlers before anybody else does.
void register_fork_handlers();
/// Room for one more process? Called before a fork that can still fail. 0, or -errno.
long reserve_fork();
/// After the C library's fork returned in the parent (pid > 0) or failed (pid < 0).
void finish_fork(int pid);
/// The three fork handlers, for forks that the C library does not announce (clone, _Fork).
void fork_prepare();
void fork_parent();
void fork_child();
/// First thing in the child if its window faults before the fork handlers ran. False: the fork was not ours.
bool continue_forked_child();
/// The calling thread is the one that is forking just now.
bool is_forking_thread();

/// execve with everything copied out of the window and the tree's variables kept in the environment.
long call_execve(const char* path, char* const* argv, char* const* envp);

/// Copies of exec arguments in one block of the resident heap (`memory`, the caller frees it).
struct ExecArguments {
  const char* path = nullptr;
  char** argv = nullptr;
  char** envp = nullptr;
  char* scratch = nullptr;  // kTargetScratch bytes, for judge_program()
  void* memory = nullptr;
};
/// False: out of memory, or an argument is not readable (errno EFAULT).
long stage_exec(const char* path, char* const* argv, char* const* envp, ExecArguments* staged);

/// A helper thread that gives frames to siblings when they ask. False: there is none, because the kernel
/// allows no thread.
bool start_helper_thread();
/// This process has siblings, or is about to: starts the helper thread if there is anything to ask for, which
/// is what goes beyond the guaranteed minimum. A short program never gets so far, and a thread is a good part
/// of what its start, its exec and its end would cost. False: as above.
bool listen_to_siblings();
/// For TreeRamBudget: the same when frames were taken, if there are siblings.
void note_frames_taken();

}  // namespace enchilada::runtime
