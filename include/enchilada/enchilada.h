/// @file
/// Enchilada: memory larger than RAM, and regions of memory that fork, snapshot and roll back, in this
/// process.
///
///     auto vm = enchilada::Vm::create({.ram_bytes = 256 << 20}).value();
///     auto region = vm.map(std::uint64_t{4} << 30).value();       // 4 GiB of it, in 256 MiB of RAM
///     region.data()[0] = std::byte{1};
///     auto mark = region.snapshot().value();
///     region.data()[0] = std::byte{2};
///     (void)region.rollback(mark);                                 // data()[0] is 1 again
///
/// Faults are resolved in the thread that takes them, by a SIGBUS handler that the first Vm installs: a fault
/// that is not ours goes to the handler that was there before. Who installs one later must pass faults on
/// that are not its own. System calls (read, write, send ...) into a region work only on pages that are
/// pinned (Region::pin): elsewhere they answer EFAULT. After fork(2) the child has none of the regions: an
/// access there is a SIGSEGV.
///
/// Thread safety: different threads may use all objects at once, with these exceptions: moving, assigning and
/// destroying an object needs that no other thread uses that object; while a region is unmapped, rolled back,
/// restored or discarded, an access by another thread sees either contents. Functions of one Vm wait for each
/// other; accesses do not wait for them, but for diff(). None may be called in a signal handler.
/// Errors are values with a text that says what to do; nothing here throws, except Expected::value().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace enchilada {

/// What kind of failure an Error is.
enum class ErrorCode : std::uint8_t {
  kInvalidArgument,  ///< a size, range or setting that makes no sense
  kClosed,           ///< the object was moved from or closed
  kWrongVm,          ///< objects of two Vms, or a snapshot of another region
  kPinned,           ///< memory in the way is pinned
  kNoAddressSpace,   ///< no room for a region of that size
  kNoMemory,         ///< metadata or RAM used up
  kNotSupported,     ///< the kernel does not offer what is needed
  kSystem,           ///< the operating system refused; the text says what
};

/// Why something could not be done.
struct Error {
  ErrorCode code = ErrorCode::kSystem;  ///< for the program; the text is for people
  std::string message;                  ///< one line, without a newline
};

/// A value or an Error.
template <class T>
class [[nodiscard]] Expected {
 public:
  /// Success.
  Expected(T value) : held_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit on purpose
  /// Failure.
  Expected(Error error) : held_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit on purpose

  /// Is there a value?
  [[nodiscard]] bool has_value() const { return held_.index() == 0; }
  /// The same.
  explicit operator bool() const { return has_value(); }
  /// The value; where there is an error, throws a std::runtime_error with its text.
  [[nodiscard]] T& value() & {
    demand_value();
    return std::get<0>(held_);
  }
  /// @copydoc value()
  [[nodiscard]] const T& value() const& {
    demand_value();
    return std::get<0>(held_);
  }
  /// @copydoc value()
  [[nodiscard]] T value() && {
    demand_value();
    return std::move(std::get<0>(held_));
  }
  /// value().
  T& operator*() { return value(); }
  /// Of value().
  T* operator->() { return &value(); }
  /// The error; only when there is one.
  [[nodiscard]] const Error& error() const { return std::get<1>(held_); }

 private:
  // A program that does not ask ends with the reason. Without exceptions std::get() ends it, without one.
  void demand_value() const {
#ifdef __cpp_exceptions
    if (!has_value()) throw std::runtime_error(error().message);
#endif
  }

  std::variant<T, Error> held_;
};

/// The value of what has none.
struct Done {};
/// Success or an Error.
using Status = Expected<Done>;

/// Where pages go that do not fit into RAM.
struct SwapPlace {
  std::string directory{};  ///< an unnamed file is made in it; empty: $ENCHILADA_SWAP_DIR, or /var/tmp
  std::uint64_t bytes = 0;  ///< how large it may grow; 0: what the file system has to spare, at most 32 GiB
};

/// What a Vm is to be like.
struct VmOptions {
  std::uint64_t ram_bytes = std::uint64_t{256} << 20;  ///< for the contents of all regions together; >= 1 MiB
  std::vector<SwapPlace> swap{SwapPlace{}};            ///< up to four, used in stripes; empty: none
  std::vector<std::string> settings{};                 ///< "mechanism=mode", as `enchilada run --set`
};

/// What a Vm has done and holds. Sizes in bytes.
struct VmStatistics {
  std::uint64_t ram_bytes = 0;                                  ///< the budget
  std::uint64_t resident_bytes = 0;                             ///< frames in use
  std::uint64_t swap_used_bytes = 0;                            ///< of all swap places
  std::uint64_t swap_bytes = 0;                                 ///< capacity
  std::uint64_t metadata_bytes = 0;                             ///< what the VM system itself needs
  std::uint64_t objects = 0;                                    ///< VM objects alive
  std::vector<std::pair<std::string, std::uint64_t>> counters;  ///< docs/stats.md
};

/// A range of pages of a region.
struct PageRange {
  std::uint64_t offset = 0;  ///< bytes from the start of the region
  std::uint64_t bytes = 0;   ///< a multiple of the page size
};

/// What a region is to be like.
struct RegionOptions {
  std::uint64_t capacity = 0;  ///< addresses to keep free for resize(); 0: the size
};

/// What a region holds.
struct RegionStatistics {
  std::uint64_t bytes = 0;         ///< its size
  std::uint64_t capacity = 0;      ///< how far resize() may go
  std::uint64_t mapped_bytes = 0;  ///< pages that an access would find without a fault
  std::uint64_t entries = 0;       ///< map entries
  unsigned depth = 0;              ///< longest chain of VM objects: 1 without forks and snapshots
};

namespace library {
class VmInstance;
struct RegionState;
struct SnapshotState;
}  // namespace library

class Region;

/// The contents of a region at one moment. Costs what is written afterwards. May outlive its region.
class Snapshot {
 public:
  /// Leaves the other one closed: its functions answer kClosed.
  Snapshot(Snapshot&&) noexcept;
  /// The same; what this one had is given back first.
  Snapshot& operator=(Snapshot&&) noexcept;
  /// Drops it; what only it has kept is freed.
  ~Snapshot();

  /// Size of the region when it was taken.
  [[nodiscard]] std::uint64_t size() const;
  /// A new region with these contents, at an address of its own: a branch.
  Expected<Region> branch() const;

 private:
  friend class Region;
  explicit Snapshot(std::unique_ptr<library::SnapshotState> state);
  std::unique_ptr<library::SnapshotState> state_;
};

/// Managed memory at a fixed address. Destroying it unmaps it.
class Region {
 public:
  /// How memory will be used (advise()).
  enum class Advice : std::uint8_t { kNormal, kSequential, kRandom, kWillNeed, kDontNeed };

  /// Leaves the other one closed: its functions answer kClosed.
  Region(Region&&) noexcept;
  /// The same; what this one had is given back first.
  Region& operator=(Region&&) noexcept;
  /// Unmaps the region; its snapshots stay.
  ~Region();

  /// First byte; page aligned. nullptr after a move.
  [[nodiscard]] std::byte* data() const;
  /// Bytes; 0 after a move.
  [[nodiscard]] std::uint64_t size() const;
  /// All of it.
  [[nodiscard]] std::span<std::byte> bytes() const { return {data(), static_cast<std::size_t>(size())}; }

  /// A second region with the same contents at another address, copy-on-write both ways. kPinned: unpin
  /// first.
  Expected<Region> fork() const;
  /// Marks the contents. kPinned: unpin first.
  Expected<Snapshot> snapshot() const;
  /// Back to what the snapshot holds, the size too; the snapshot stays. Snapshots of other regions are
  /// refused (kWrongVm): Snapshot::branch() maps them. Costs what was written since; nothing is copied.
  Status rollback(const Snapshot& snapshot);
  /// Pages that were written or discarded since the snapshot (or to which the size has changed), ascending. A
  /// page that was written with what it held counts. Faults wait meanwhile.
  Expected<std::vector<PageRange>> diff(const Snapshot& snapshot) const;

  /// How [offset, offset + bytes) will be used. kDontNeed: soon not; contents stay.
  Status advise(std::uint64_t offset, std::uint64_t bytes, Advice advice);
  /// The range becomes zeros, memory and swap are freed.
  Status discard(std::uint64_t offset, std::uint64_t bytes);
  /// Keeps the range resident and in place, so that system calls may use it, until unpin(). Does not nest.
  Status pin(std::uint64_t offset, std::uint64_t bytes);
  /// Ends pin() of the same range.
  Status unpin(std::uint64_t offset, std::uint64_t bytes);
  /// Changes the size, up to RegionOptions::capacity; what is new is zero.
  Status resize(std::uint64_t bytes);
  /// What it holds; costs a look at each page.
  [[nodiscard]] Expected<RegionStatistics> statistics() const;

 private:
  friend class Vm;
  friend class Snapshot;
  explicit Region(std::unique_ptr<library::RegionState> state);
  std::unique_ptr<library::RegionState> state_;
};

/// A VM system of one's own: a RAM budget, swap, and the regions in them. Regions and snapshots keep what
/// they need alive, in whatever order all are destroyed.
class Vm {
 public:
  /// Makes one, with its swap files.
  static Expected<Vm> create(const VmOptions& options = {});
  /// Leaves the other one closed: its functions answer kClosed.
  Vm(Vm&&) noexcept;
  /// The same; what this one had is given back first.
  Vm& operator=(Vm&&) noexcept;
  /// Regions and snapshots that are left keep the VM system alive.
  ~Vm();

  /// Zeroed memory; `bytes` is rounded up to pages, at most 1 TiB. Costs RAM only as it is touched.
  Expected<Region> map(std::uint64_t bytes, const RegionOptions& options = {});
  /// What it has done and holds.
  [[nodiscard]] Expected<VmStatistics> statistics() const;

 private:
  explicit Vm(std::shared_ptr<library::VmInstance> instance);
  std::shared_ptr<library::VmInstance> instance_;
};

}  // namespace enchilada
