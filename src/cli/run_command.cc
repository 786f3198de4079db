// The steps of `enchilada run`: check everything, make the tree, run the program, tell.
#include "cli/run_command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <fstream>

#include "cli/launch.h"
#include "cli/program_check.h"
#include "cli/settings.h"
#include "cli/swap_file.h"
#include "cli/system_info.h"
#include "cli/tree_report.h"
#include "cli/user_error.h"
#include "observe/run_report.h"
#include "runtime/tree/process_tree.h"
#include "runtime/tree/tree_swap.h"
#include "runtime/tree/tree_words.h"
#include "swap/swap_place.h"

namespace enchilada::cli {
namespace {

/// What one process needs to get from fault to fault: its wired pages, a cluster or two, and room to reclaim.
constexpr std::uint64_t kSmallestRam = std::uint64_t{2} << 20;

/// What the runtime keeps open in each process, and the loader needs to begin, beside the program's own
/// three.
constexpr rlim_t kFewestDescriptors = 10;

void require_descriptors() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= kFewestDescriptors) return;
  throw UserError(fmt::format("only {} open files are allowed (ulimit -n); at least {} are needed",
                              limit.rlim_cur, kFewestDescriptors));
}

/// Closes a descriptor that run does not hand on.
class OwnedDescriptor {
 public:
  explicit OwnedDescriptor(int fd = -1) : fd_(fd) {}
  ~OwnedDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  OwnedDescriptor(const OwnedDescriptor&) = delete;
  OwnedDescriptor& operator=(const OwnedDescriptor&) = delete;
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

/// --ram in frames, what --compressed takes included.
std::uint64_t chosen_ram(const RunOptions& options) {
  const std::uint64_t bytes = options.ram_bytes ? *options.ram_bytes : available_memory() / 2;
  if (bytes < kSmallestRam) {
    throw UserError(fmt::format("--ram {}: too small to work; at least {} is needed", human_bytes(bytes),
                                human_bytes(kSmallestRam)));
  }
  constexpr std::uint64_t kLargestRam = (words::kMaxFrames + 1) * kPageSize;
  const std::uint64_t frames = std::min(bytes / kPageSize, words::kMaxFrames);
  if (bytes > kLargestRam) {
    throw UserError(
        fmt::format("--ram {}: at most {} can be managed", human_bytes(bytes), human_bytes(kLargestRam)));
  }
  return frames;
}

/// Takes --compressed out of the frames.
std::uint64_t chosen_compressed(const RunOptions& options, std::uint64_t* frames) {
  constexpr std::uint64_t kSmallest = std::uint64_t{1} << 20;
  const std::uint64_t bytes = options.compressed_bytes / kPageSize * kPageSize;
  if (options.compressed_bytes == 0) return 0;
  if (bytes < kSmallest) {
    throw UserError(fmt::format("--compressed {}: too small to be of use; at least {} is needed",
                                human_bytes(options.compressed_bytes), human_bytes(kSmallest)));
  }
  const std::uint64_t ram = *frames * kPageSize;
  if (bytes > ram || ram - bytes < kSmallestRam) {
    throw UserError(fmt::format("--compressed {}: it is a part of --ram, and of {} at least {} must be left",
                                human_bytes(bytes), human_bytes(ram), human_bytes(kSmallestRam)));
  }
  *frames -= bytes / kPageSize;
  return bytes;
}

std::vector<OpenedSwap> open_all(const RunOptions& options) {
  std::vector<std::string> specs = options.swap;
  if (specs.empty()) specs.push_back(default_swap_directory());
  if (specs.size() > kMaxSwapFiles) {
    throw UserError(fmt::format("--swap: at most {} swap files can be used", kMaxSwapFiles));
  }
  std::vector<OpenedSwap> opened;
  opened.reserve(specs.size());
  for (const std::string& spec : specs) opened.push_back(open_swap(spec));
  return opened;
}

/// Never kAutomatic: the processes of the tree need not ask the kernel again.
TransportChoice chosen_transport(const RunOptions& options, TransportSetting wanted,
                                 const HostFeatures& host) {
  TransportChoice choice = TransportChoice::kAutomatic;
  if (wanted == TransportSetting::kMove) choice = TransportChoice::kMove;
  if (wanted == TransportSetting::kCopy || options.force_copy) choice = TransportChoice::kCopy;
  if (choice == TransportChoice::kMove && !host.move) {
    throw UserError("--set transport=move: this kernel has no UFFDIO_MOVE (Linux 6.8); leave it to 'auto'");
  }
  if (choice == TransportChoice::kAutomatic) {
    choice = host.move ? TransportChoice::kMove : TransportChoice::kCopy;
  }
  return choice;
}

TreeConfig make_config(const RunOptions& options, const Settings& settings, const HostFeatures& host,
                       std::uint64_t frames, const std::vector<OpenedSwap>& swap) {
  TreeConfig config;
  config.ram_frames = frames;
  config.compressed_bytes = chosen_compressed(options, &config.ram_frames);
  config.transport = chosen_transport(options, settings.transport, host);
  config.modes = settings.modes;
  config.verbose = options.verbose ? 1 : 0;
  config.swap_file_count = static_cast<std::uint32_t>(swap.size());
  for (std::size_t i = 0; i < swap.size(); ++i) {
    config.swap_files[i] = {swap[i].descriptor, swap[i].direct ? 1u : 0u, swap[i].bytes / kPageSize};
    config.swap_blocks += swap[i].bytes / kPageSize;
  }
  const SwapGeometry geometry = swap_geometry(config);
  if (!geometry.valid()) throw UserError("--swap: together the swap files are too large");
  config.swap_storage_bytes = SwapSpace::required_bytes(geometry, config.modes.get<SwapAllocatorMode>());
  if (config.compressed_bytes != 0) {
    config.compressed_storage_bytes =
        CompressedStore::required_bytes(ByteCount{config.compressed_bytes}, compressed_numbers(config));
  }
  return config;
}

/// Takes the limit on the address space off this process and what it starts, as far as it may. Returns what
/// the program shall believe to have. Managed memory is a window of 16 TiB, little of it ever touched.
std::uint64_t lift_address_limit() {
  constexpr std::uint64_t kNeeded = std::uint64_t{17} << 40;
  struct rlimit limit {};
  if (getrlimit(RLIMIT_AS, &limit) != 0) return RLIM_INFINITY;
  const rlim_t found = limit.rlim_cur;
  if (found >= kNeeded) return found;
  const struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
  if (limit.rlim_max < kNeeded && setrlimit(RLIMIT_AS, &none) == 0) return found;
  limit.rlim_cur = limit.rlim_max;
  if (limit.rlim_max < kNeeded || setrlimit(RLIMIT_AS, &limit) != 0) {
    throw UserError(
        fmt::format("the address space is limited to {} (RLIMIT_AS), managed memory is a window of 16 TiB;"
                    " raise it with 'ulimit -v unlimited'",
                    human_bytes(limit.rlim_max)));
  }
  return found;
}

std::vector<std::string> child_environment(const ProcessTree& tree, const std::string& library,
                                           std::uint64_t address_limit) {
  std::array<char, 128> value{};
  const std::size_t length = tree.environment(value);
  const char* preload = std::getenv("LD_PRELOAD");
  // Ours is the last: an allocator that the user preloads is the program's, and ours is what it maps from.
  const std::string others = preload != nullptr && *preload != 0 ? fmt::format("{}:", preload) : "";
  const std::string limit =
      address_limit == RLIM_INFINITY ? "" : fmt::format("{}{}", kLimitMark, address_limit);
  return {fmt::format("{}={}{}", kTreeVariable, std::string_view(value.data(), length), limit),
          fmt::format("LD_PRELOAD={}{}", others, library)};
}

std::string base_name(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

RunReport make_report(const RunOptions& options, const ProcessTree& tree, TreeSwap& swap_state,
                      const std::vector<OpenedSwap>& swap, const ChildEnd& end, double seconds) {
  RunReport report;
  report.program = base_name(options.command.front());
  report.exit_status = end.status;
  report.signal = end.signal;
  report.seconds = seconds;
  for (const OpenedSwap& s : swap) report.swap_files.push_back(s.place);
  report.transport = tree.config().transport == TransportChoice::kCopy ? "copy" : "move";
  gather(tree, swap_state, &report);
  return report;
}

/// Opened before the program runs: a bad path must not cost an hour's run.
OwnedDescriptor open_stats(const std::string& path) {
  if (path.empty()) return OwnedDescriptor();
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) throw UserError(fmt::format("--stats {}: {}", path, std::strerror(errno)));
  return OwnedDescriptor(fd);
}

/// False, and errno: not all could be written.
bool write_all(int fd, const std::string& text) {
  for (std::size_t at = 0; at < text.size();) {
    const ssize_t n = write(fd, text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += static_cast<std::size_t>(n);
  }
  return true;
}

/// False, and one line: the statistics could not be written.
bool write_stats(const RunOptions& options, const RunReport& report, int stats) {
  if (stats < 0 || write_all(stats, summary_json(report))) return true;
  (void)write_all(STDERR_FILENO, fmt::format("enchilada: --stats {}: cannot be written: {}\n",
                                             options.stats_file, std::strerror(errno)));
  return false;
}

void tell(const RunOptions& options, const RunReport& report, bool said_why) {
  // Also when asked to be quiet: it is not what the user thinks it is.
  if (report.unmanaged != 0) {
    (void)write_all(STDERR_FILENO,
                    fmt::format("enchilada: {} program{} could not be managed, the first was {}\n",
                                report.unmanaged, report.unmanaged == 1 ? "" : "s", report.unmanaged_first));
  }
  if (options.quiet || (report.processes == 0 && said_why)) return;
  if (report.processes == 0) {
    (void)write_all(STDERR_FILENO,
                    fmt::format("enchilada: {} was not managed: it did not load enchilada's library"
                                " (LD_PRELOAD ignored or cleared)\n",
                                report.program));
    return;
  }
  (void)write_all(STDERR_FILENO, summary_text(report));
}

}  // namespace

int run_command(const RunOptions& options) {
  if (const char* outer = std::getenv(kTreeVariable); outer != nullptr && *outer != 0) {
    throw UserError(
        "run: this shell runs under `enchilada run` already, and so does all that is started in it");
  }
  require_descriptors();
  const std::uint64_t frames = chosen_ram(options);
  const Settings settings = parse_settings(options.settings);
  const ProgramInfo program = check_program(options.command.front());
  const std::string library = preload_library();
  const HostFeatures host = require_usable_host();
  const std::uint64_t file_size_limit = raise_file_size_limit();
  const std::uint64_t address_limit = lift_address_limit();
  const std::vector<OpenedSwap> swap = open_all(options);
  TreeConfig config = make_config(options, settings, host, frames, swap);
  config.file_size_limit = file_size_limit;
  for (const OpenedSwap& s : swap) {
    if (!s.direct && !options.quiet) {
      (void)write_all(
          STDERR_FILENO,
          fmt::format("enchilada: note: no direct I/O in {}: the page cache holds a second copy of "
                      "what is swapped out\n",
                      s.place));
    }
  }
  const OwnedDescriptor stats = open_stats(options.stats_file);
  ProcessTree tree;
  const TreeStatus made = tree.create(config, -1);
  if (made != TreeStatus::kOk) throw UserError(describe(made));
  tree.set_descriptor(move_high(tree.header().segment_descriptor));
  TreeSwap tree_swap(tree);
  if (!tree_swap.create() || !tree_swap.attach()) {
    throw UserError("the swap space cannot be set up");
  }

  std::vector<std::string> arguments = options.command;
  std::string path = program.path;
  if (program.shell_script) {
    arguments[0] = path;
    arguments.insert(arguments.begin(), program.interpreter);
    path = program.interpreter;
  }
  const auto began = std::chrono::steady_clock::now();
  const ChildEnd end = run_child(path, arguments, child_environment(tree, library, address_limit));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  tree.recover_dead();
  const RunReport report = make_report(options, tree, tree_swap, swap, end, took.count());
  const bool written = write_stats(options, report, stats.get());
  tell(options, report, tree.header().given_up.load() != 0);
  return end.shell_status() != 0 || written ? end.shell_status() : kStatusUsage;
}

}  // namespace enchilada::cli
