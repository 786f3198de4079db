// Algorithms written for memory, on data that are ten times as large as RAM: merge sort, and breadth-first
// search of a graph. The same code runs on a region and on a file mapped with mmap.
//
//   out_of_core sort|bfs [--with region|mmap|both] [--data 320M] [--ram 32M] [--directory /var/tmp]
//
// The input is a file. A region is filled from it by read(2) through a buffer, since the kernel cannot fault
// a region's pages in; mmap maps it. `--ram` limits the region only: for a fair comparison run mmap in a
// memory cgroup, as examples/compare.py does. Prints a digest of the answer, which must be the same for both.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <queue>
#include <span>
#include <vector>

#include "example.h"

namespace {

using example::fail;
using example::fail_errno;
using example::must;

constexpr std::uint64_t kBuffer = std::uint64_t{1} << 20;

/// A file without a name, gone when the program ends, however it ends.
class ScratchFile {
 public:
  explicit ScratchFile(const std::string& directory)
      : descriptor_(open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)) {
    if (descriptor_ < 0) fail_errno(directory);
  }
  ~ScratchFile() { close(descriptor_); }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  template <class T>
  void append(T value) {
    const auto* const bytes = reinterpret_cast<const std::byte*>(&value);
    pending_.insert(pending_.end(), bytes, bytes + sizeof(value));
    size_ += sizeof(value);
    if (pending_.size() >= kBuffer) flush();
  }
  void flush() {
    for (std::size_t done = 0; done < pending_.size();) {
      const ssize_t n = write(descriptor_, pending_.data() + done, pending_.size() - done);
      if (n < 0) fail_errno("write");
      done += static_cast<std::size_t>(n);
    }
    pending_.clear();
  }
  /// Also grows it with zeros.
  void resize(std::uint64_t bytes) {
    if (ftruncate(descriptor_, static_cast<off_t>(bytes)) != 0) fail_errno("ftruncate");
    size_ = bytes;
  }
  [[nodiscard]] std::uint64_t size() const { return size_; }
  [[nodiscard]] int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
  std::uint64_t size_ = 0;
  std::vector<std::byte> pending_;
};

/// Where the algorithms find their data: memory with the contents of a file, and memory of zeros.
class Space {
 public:
  virtual ~Space() = default;
  virtual std::byte* load(ScratchFile& file) = 0;
  virtual std::byte* zeros(std::uint64_t bytes) = 0;
  /// The data will be read in order.
  virtual void in_order(std::byte* data, std::uint64_t bytes) = 0;
};

class RegionSpace final : public Space {
 public:
  explicit RegionSpace(std::uint64_t ram, const std::string& directory)
      : vm_(must(enchilada::Vm::create({.ram_bytes = ram, .swap = {{.directory = directory}}}))) {}

  std::byte* load(ScratchFile& file) override {
    std::byte* const data = zeros(file.size());
    std::vector<std::byte> buffer(kBuffer);
    for (std::uint64_t at = 0; at < file.size();) {
      const ssize_t n = pread(file.descriptor(), buffer.data(), buffer.size(), static_cast<off_t>(at));
      if (n <= 0) fail_errno("read");
      std::memcpy(data + at, buffer.data(), static_cast<std::size_t>(n));
      at += static_cast<std::uint64_t>(n);
    }
    return data;
  }
  std::byte* zeros(std::uint64_t bytes) override {
    regions_.push_back(must(vm_.map(bytes)));
    return regions_.back().data();
  }
  void in_order(std::byte* data, std::uint64_t bytes) override {
    for (enchilada::Region& region : regions_) {
      if (region.data() == data) must(region.advise(0, bytes, enchilada::Region::Advice::kSequential));
    }
  }

 private:
  enchilada::Vm vm_;
  std::vector<enchilada::Region> regions_;
};

class MmapSpace final : public Space {
 public:
  explicit MmapSpace(std::string directory) : directory_(std::move(directory)) {}
  ~MmapSpace() override {
    for (const std::span<std::byte> mapping : mappings_) munmap(mapping.data(), mapping.size());
  }
  std::byte* load(ScratchFile& file) override {
    void* const at = mmap(nullptr, file.size(), PROT_READ | PROT_WRITE, MAP_SHARED, file.descriptor(), 0);
    if (at == MAP_FAILED) fail_errno("mmap");
    mappings_.push_back({static_cast<std::byte*>(at), file.size()});
    return mappings_.back().data();
  }
  std::byte* zeros(std::uint64_t bytes) override {
    ScratchFile file(directory_);  // the mapping keeps it
    file.resize(bytes);
    return load(file);
  }
  void in_order(std::byte* data, std::uint64_t bytes) override { madvise(data, bytes, MADV_SEQUENTIAL); }

 private:
  std::string directory_;
  std::vector<std::span<std::byte>> mappings_;
};

// --- Merge sort

void make_numbers(ScratchFile& file, std::uint64_t bytes) {
  example::Random random(11);
  for (std::uint64_t i = 0; i < bytes / sizeof(std::uint64_t); ++i) file.append(random.next());
  file.flush();
}

/// Sorts runs that fit into RAM, then merges all of them into a file at once. Digest of what was written.
std::uint64_t sort_file(Space& space, ScratchFile& input, std::uint64_t ram, const std::string& directory) {
  std::byte* const bytes = space.load(input);
  const std::span data(reinterpret_cast<std::uint64_t*>(bytes), input.size() / sizeof(std::uint64_t));
  const std::uint64_t run = std::max<std::uint64_t>(ram / 4 / sizeof(std::uint64_t), 1);
  struct Head {
    std::uint64_t value;
    std::uint64_t at;
    std::uint64_t end;
    bool operator>(const Head& other) const { return value > other.value; }
  };
  std::priority_queue<Head, std::vector<Head>, std::greater<>> heads;
  for (std::uint64_t at = 0; at < data.size(); at += run) {
    const std::uint64_t end = std::min<std::uint64_t>(at + run, data.size());
    std::sort(data.begin() + static_cast<std::ptrdiff_t>(at),
              data.begin() + static_cast<std::ptrdiff_t>(end));
    heads.push({data[at], at, end});
  }
  ScratchFile output(directory);
  std::uint64_t digest = 0;
  std::uint64_t last = 0;
  while (!heads.empty()) {
    Head head = heads.top();
    heads.pop();
    if (head.value < last) fail("the output is not in order");
    last = head.value;
    output.append(head.value);
    digest = digest * 31 + head.value;
    if (++head.at == head.end) continue;
    head.value = data[head.at];
    heads.push(head);
  }
  output.flush();
  if (output.size() != input.size()) fail("the output has lost numbers");
  return digest;
}

// --- Breadth-first search

/// A random graph as a file: the number of vertices, where each one's edges begin, the edges.
void make_graph(ScratchFile& file, std::uint64_t bytes) {
  const std::uint64_t vertices = bytes / (sizeof(std::uint64_t) + 8 * sizeof(std::uint32_t));
  const auto degree = [](std::uint64_t v) { return example::mix(v) % 16; };  // 7.5 on average; some have none
  file.append(vertices);
  std::uint64_t edges = 0;
  for (std::uint64_t v = 0; v <= vertices; ++v) {
    file.append(edges);
    edges += degree(v);
  }
  example::Random random(13);
  for (std::uint64_t v = 0; v < vertices; ++v) {
    for (std::uint64_t i = degree(v); i > 0; --i)
      file.append(static_cast<std::uint32_t>(random.below(vertices)));
  }
  file.flush();
}

/// Level by level, and within a level in the order of the vertices, so that each level is one sweep over the
/// edges: only the levels and the two frontiers (an eighth of RAM at 10:1) are accessed at random.
std::uint64_t search_file(Space& space, ScratchFile& input) {
  std::byte* const bytes = space.load(input);
  space.in_order(bytes, input.size());
  const auto* const words = reinterpret_cast<const std::uint64_t*>(bytes);
  const std::uint64_t vertices = words[0];
  const std::uint64_t* const first = words + 1;
  const auto* const edges = reinterpret_cast<const std::uint32_t*>(words + vertices + 2);
  const std::uint64_t bitmap = vertices / 64 + 1;                              // words
  auto* const level = reinterpret_cast<std::uint8_t*>(space.zeros(vertices));  // 0: not reached
  std::span now(reinterpret_cast<std::uint64_t*>(space.zeros(bitmap * 8)), bitmap);
  std::span next(reinterpret_cast<std::uint64_t*>(space.zeros(bitmap * 8)), bitmap);

  std::uint64_t digest = 0;
  std::uint64_t reached = 1;
  now[0] = 1;
  level[0] = 1;
  for (std::uint8_t depth = 1; reached != 0 && depth < 255; ++depth) {
    digest = digest * 1000003 + reached;
    reached = 0;
    for (std::uint64_t w = 0; w < bitmap; ++w) {
      for (std::uint64_t bits = now[w]; bits != 0; bits &= bits - 1) {
        const std::uint64_t v = w * 64 + static_cast<std::uint64_t>(__builtin_ctzll(bits));
        for (std::uint64_t e = first[v]; e < first[v + 1]; ++e) {
          const std::uint32_t to = edges[e];
          if (level[to] != 0) continue;
          level[to] = static_cast<std::uint8_t>(depth + 1);
          next[to / 64] |= std::uint64_t{1} << to % 64;
          ++reached;
        }
      }
      now[w] = 0;
    }
    std::swap(now, next);
  }
  for (std::uint64_t v = 0; v < vertices; ++v) digest = digest * 31 + level[v];
  return digest;
}

struct Job {
  bool sort;
  std::uint64_t data;
  std::uint64_t ram;
  std::string directory;
};

std::uint64_t run(const Job& job, bool region) {
  ScratchFile input(job.directory);
  job.sort ? make_numbers(input, job.data) : make_graph(input, job.data);
  // Neither side begins with the input in the page cache.
  fsync(input.descriptor());
  posix_fadvise(input.descriptor(), 0, 0, POSIX_FADV_DONTNEED);
  const double start = example::now();
  std::unique_ptr<Space> space;
  if (region) {
    space = std::make_unique<RegionSpace>(job.ram, job.directory);
  } else {
    space = std::make_unique<MmapSpace>(job.directory);
  }
  const std::uint64_t digest =
      job.sort ? sort_file(*space, input, job.ram, job.directory) : search_file(*space, input);
  std::printf("%-6s %8.3f s, digest %016llx\n", region ? "region" : "mmap", example::now() - start,
              static_cast<unsigned long long>(digest));
  std::fflush(stdout);
  return digest;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view what = argc > 1 ? argv[1] : "";
  if (what != "sort" && what != "bfs") fail("'sort' or 'bfs'; see examples/README.md", 2);
  example::Options options(argc, argv, 2);
  Job job{};
  job.sort = what == "sort";
  job.ram = options.size("--ram", std::uint64_t{32} << 20);
  job.data = options.size("--data", job.ram * 10);
  job.directory = options.word("--directory", "/var/tmp");
  const std::string_view with = options.word("--with", "both");
  options.done();
  if (job.data < 4096) fail("--data: at least 4K", 2);
  if (!job.sort && job.data > (std::uint64_t{40} << 32)) fail("--data: at most 160G for bfs", 2);
  if (with != "region" && with != "mmap" && with != "both") fail("--with: 'region', 'mmap' or 'both'", 2);

  std::optional<std::uint64_t> by_mmap;
  std::optional<std::uint64_t> by_region;
  if (with != "region") by_mmap = run(job, false);
  if (with != "mmap") by_region = run(job, true);
  if (by_mmap && by_region && *by_mmap != *by_region) fail("the two sides disagree");
  return 0;
}
