// An in-memory key-value server that saves consistent snapshots while it is being written.
//
//   kv_server serve --socket PATH [--memory 64M] [--with snapshot|fork]
//   kv_server compare [--memory 64M] [--requests N] [--saves N]
//
// One line is one request, for example with `nc -U PATH`:
//   SET key value [key value ...]   all of them at once       GET key       SAVE path      WAIT      QUIT
// SAVE answers at once and goes on in the background; WAIT answers when it is done. With `snapshot` the table
// lies in a region, and a thread writes a branch of Region::snapshot() to the file; with `fork` a child
// process writes its copy. `compare` starts both servers in turn, writes pairs of keys that must always be
// equal, measures what each request takes while saves are under way, and looks for broken pairs in the
// files.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <thread>
#include <unordered_map>
#include <vector>

#include "example.h"

namespace {

using example::fail;
using example::fail_errno;
using example::must;

/// The table is flat: no pointers, so that a branch of it, which lies elsewhere, reads the same.
struct Slot {
  char key[24];
  char value[40];
};

class Table {
 public:
  Table(void* memory, std::uint64_t bytes)
      : slots_(static_cast<Slot*>(memory)), count_(bytes / sizeof(Slot)) {}

  /// False: too long, or the table is full.
  bool set(std::string_view key, std::string_view value) {
    if (key.empty() || key.size() >= sizeof(Slot::key) || value.size() >= sizeof(Slot::value)) return false;
    Slot* const slot = find(key);
    if (slot == nullptr) return false;
    std::memset(slot, 0, sizeof(*slot));
    std::memcpy(slot->key, key.data(), key.size());
    std::memcpy(slot->value, value.data(), value.size());
    return true;
  }
  [[nodiscard]] std::string get(std::string_view key) const {
    const Slot* const slot = find(key);
    return slot == nullptr || slot->key[0] == 0 ? "-" : slot->value;
  }
  /// One line for each key. Each slot is copied out of the table first: a stream may hand what it is given
  /// straight to write(2), and the kernel cannot fault a region's pages in.
  [[nodiscard]] bool save(const std::string& path) const {
    std::ofstream file(path, std::ios::trunc);
    for (const Slot* at = slots_; at != slots_ + count_; ++at) {
      const Slot slot = *at;
      if (slot.key[0] != 0) file << slot.key << ' ' << slot.value << '\n';
    }
    file.close();
    return !file.fail();
  }

 private:
  [[nodiscard]] Slot* find(std::string_view key) const {
    std::uint64_t at = std::hash<std::string_view>()(key) % count_;
    for (std::uint64_t tries = 0; tries < count_; ++tries) {
      if (slots_[at].key[0] == 0 || key == slots_[at].key) return &slots_[at];
      at = at + 1 == count_ ? 0 : at + 1;
    }
    return nullptr;
  }
  Slot* slots_;
  std::uint64_t count_;
};

// --- Two ways to save

/// What the server keeps its table in, and how it saves it.
class Store {
 public:
  virtual ~Store() = default;
  [[nodiscard]] virtual Table table() const = 0;
  virtual void begin_save(const std::string& path) = 0;
  /// Waits for the save that is under way. False: it has failed.
  virtual bool end_save() = 0;
};

class SnapshotStore final : public Store {
 public:
  explicit SnapshotStore(std::uint64_t bytes)
      : vm_(must(enchilada::Vm::create({.ram_bytes = 2 * bytes + (std::uint64_t{16} << 20)}))),
        region_(must(vm_.map(bytes))) {}
  ~SnapshotStore() override { end_save(); }

  [[nodiscard]] Table table() const override { return {region_.data(), region_.size()}; }
  void begin_save(const std::string& path) override {
    end_save();
    saver_ = std::thread([this, path, moment = must(region_.snapshot())] {
      const enchilada::Region branch = must(moment.branch());
      saved_ = Table(branch.data(), branch.size()).save(path);
    });
  }
  bool end_save() override {
    if (saver_.joinable()) saver_.join();
    return saved_;
  }

 private:
  enchilada::Vm vm_;
  enchilada::Region region_;
  std::thread saver_;
  std::atomic<bool> saved_{true};
};

class ForkStore final : public Store {
 public:
  explicit ForkStore(std::uint64_t bytes) : bytes_(bytes) {
    memory_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) fail_errno("mmap");
    madvise(memory_, bytes, MADV_NOHUGEPAGE);  // as Redis asks of its users: copies of 2 MiB stall writers
  }
  ~ForkStore() override {
    end_save();
    munmap(memory_, bytes_);
  }

  [[nodiscard]] Table table() const override { return {memory_, bytes_}; }
  void begin_save(const std::string& path) override {
    end_save();
    child_ = fork();
    if (child_ < 0) fail_errno("fork");
    if (child_ == 0) _exit(table().save(path) ? 0 : 1);
  }
  bool end_save() override {
    int status = 0;
    if (child_ > 0 && waitpid(child_, &status, 0) != child_) return false;
    child_ = 0;
    return status == 0;
  }

 private:
  void* memory_;
  std::uint64_t bytes_;
  pid_t child_ = 0;
};

std::unique_ptr<Store> make_store(std::string_view with, std::uint64_t bytes) {
  if (with == "snapshot") return std::make_unique<SnapshotStore>(bytes);
  if (with == "fork") return std::make_unique<ForkStore>(bytes);
  fail("--with: 'snapshot' or 'fork'", 2);
}

// --- The server

/// Answers one request; nothing: the server is to end.
std::optional<std::string> answer(Store& store, const std::string& request) {
  std::istringstream words(request);
  std::string verb;
  std::string key;
  std::string value;
  words >> verb;
  if (verb == "QUIT") return std::nullopt;
  if (verb == "WAIT") return store.end_save() ? "OK\n" : "ERROR the file could not be written\n";
  if (verb == "GET" && words >> key) return store.table().get(key) + "\n";
  if (verb == "SAVE" && words >> key) {
    store.begin_save(key);
    return "OK\n";
  }
  if (verb == "SET") {
    int pairs = 0;
    for (; words >> key >> value; ++pairs) {
      if (!store.table().set(key, value)) return "ERROR too long, or the table is full\n";
    }
    if (pairs > 0) return "OK\n";
  }
  return "ERROR not understood\n";
}

bool send_all(int to, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = send(to, text.data(), text.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

sockaddr_un socket_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) fail("--socket: no path, or one too long", 2);
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

struct Client {
  int descriptor;
  std::string unread;
};

/// Reads what has come and answers whole lines. False: the client has gone; nothing: the server is to end.
std::optional<bool> serve_client(Store& store, Client& client) {
  char bytes[4096];
  const ssize_t n = recv(client.descriptor, bytes, sizeof(bytes), 0);
  if (n <= 0) return false;
  client.unread.append(bytes, static_cast<std::size_t>(n));
  for (std::size_t end; (end = client.unread.find('\n')) != std::string::npos;
       client.unread.erase(0, end + 1)) {
    const auto reply = answer(store, client.unread.substr(0, end));
    if (!reply) return std::nullopt;
    if (!send_all(client.descriptor, *reply)) return false;
  }
  return client.unread.size() < 65536;
}

void serve(const std::string& path, Store& store) {
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_un address = socket_address(path);
  unlink(path.c_str());
  if (bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(listener, 16) != 0)
    fail_errno(path);
  std::vector<Client> clients;
  for (bool on = true; on;) {
    std::vector<pollfd> waits{{listener, POLLIN, 0}};
    for (const Client& client : clients) waits.push_back({client.descriptor, POLLIN, 0});
    if (poll(waits.data(), waits.size(), -1) < 0 && errno != EINTR) fail_errno("poll");
    for (std::size_t i = waits.size() - 1; i > 0; --i) {
      if (waits[i].revents == 0) continue;
      const auto stays = serve_client(store, clients[i - 1]);
      on = on && stays.has_value();
      if (stays.value_or(false)) continue;
      close(clients[i - 1].descriptor);
      clients.erase(clients.begin() + static_cast<std::ptrdiff_t>(i) - 1);
    }
    if ((waits[0].revents & POLLIN) == 0) continue;
    if (const int one = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC); one >= 0)
      clients.push_back({one, {}});
  }
  for (const Client& client : clients) close(client.descriptor);
  close(listener);
  unlink(path.c_str());
}

// --- The comparison

class Connection {
 public:
  explicit Connection(const std::string& path) : socket_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const sockaddr_un address = socket_address(path);
    for (int tries = 0; connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0;
         ++tries) {
      if (tries == 500) fail("the server does not answer");
      usleep(20000);
    }
  }
  ~Connection() { close(socket_); }
  void ask(const std::string& request) {
    if (!send_all(socket_, request + "\n")) fail("the server has gone");
    std::string reply;
    while (reply.empty() || reply.back() != '\n') {
      char bytes[256];
      const ssize_t n = recv(socket_, bytes, sizeof(bytes), 0);
      if (n <= 0) fail("the server has gone");
      reply.append(bytes, static_cast<std::size_t>(n));
    }
    if (reply != "OK\n") fail(request + ": " + reply.substr(0, reply.size() - 1));
  }
  void quit() { (void)send_all(socket_, "QUIT\n"); }

 private:
  int socket_;
};

/// Words of a SET: both halves of a pair.
std::string pair_of(std::uint64_t i, std::uint64_t value) {
  const std::string n = std::to_string(i);
  const std::string v = std::to_string(value);
  return " a" + n + ' ' + v + " b" + n + ' ' + v;
}

void fill(Connection& server, std::uint64_t pairs) {
  constexpr std::uint64_t kBatch = 256;
  for (std::uint64_t i = 0; i < pairs;) {
    std::string request = "SET";
    for (const std::uint64_t end = std::min(i + kBatch, pairs); i < end; ++i) request += pair_of(i, 0);
    server.ask(request);
  }
}

/// Every pair is there, and whole.
void check_file(const std::string& path, std::uint64_t pairs) {
  std::unordered_map<std::string, std::string> half;
  std::uint64_t whole = 0;
  std::ifstream file(path);
  for (std::string key, value; file >> key >> value;) {
    const auto [other, first] = half.try_emplace(key.substr(1), value);
    if (first) continue;
    if (other->second != value) fail(path + ": the halves of pair " + key.substr(1) + " differ");
    ++whole;
  }
  if (whole != pairs) fail(path + ": " + std::to_string(whole) + " pairs of " + std::to_string(pairs));
}

struct Load {
  std::uint64_t bytes;
  std::uint64_t requests;
  std::uint64_t saves;
};

/// Writes pairs, saves at even distances. What each request took, sorted, in microseconds.
std::vector<double> measure(Connection& server, const Load& load, const std::string& file) {
  const std::uint64_t pairs = load.bytes / sizeof(Slot) / 4;  // half full
  fill(server, pairs);
  example::Random random(7);
  std::vector<double> took;
  std::uint64_t saves = 0;
  for (std::uint64_t i = 1; i <= load.requests; ++i) {
    const bool save = i * load.saves / load.requests > saves;
    if (save && saves > 0) {
      server.ask("WAIT");
      check_file(file, pairs);
    }
    const std::string request = save ? "SAVE " + file : "SET" + pair_of(random.below(pairs), i);
    const double start = example::now();
    server.ask(request);
    took.push_back((example::now() - start) * 1e6);
    saves += save ? 1 : 0;
  }
  server.ask("WAIT");
  check_file(file, pairs);
  std::sort(took.begin(), took.end());
  return took;
}

void compare_one(const char* with, const Load& load, const std::string& folder) {
  const std::string path = folder + "/socket";
  const pid_t child = fork();
  if (child < 0) fail_errno("fork");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // whatever ends the measurement ends the server
    {
      const auto store = make_store(with, load.bytes);
      serve(path, *store);
    }
    _exit(0);  // what the parent wants done at its end is not the child's
  }
  const std::string file = folder + "/saved";
  std::vector<double> took;
  {
    Connection server(path);
    took = measure(server, load, file);
    server.quit();
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child || status != 0) fail(std::string(with) + ": the server has failed");
  unlink(file.c_str());
  const auto at = [&](double part) {
    return took[static_cast<std::size_t>(part * static_cast<double>(took.size() - 1))];
  };
  std::printf("%-9s median %6.1f us, p99 %8.1f us, p99.9 %8.1f us, longest %8.1f us\n", with, at(0.5),
              at(0.99), at(0.999), took.back());
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  if (command != "serve" && command != "compare") fail("'serve' or 'compare'; see examples/README.md", 2);
  example::Options options(argc, argv, 2);
  Load load{};
  load.bytes = options.size("--memory", std::uint64_t{64} << 20) & ~std::uint64_t{4095};
  if (load.bytes < 4096) fail("--memory: at least 4K", 2);
  if (command == "serve") {
    const std::string path(options.word("--socket", ""));
    const std::string_view with = options.word("--with", "snapshot");
    options.done();
    (void)socket_address(path);
    const auto store = make_store(with, load.bytes);
    serve(path, *store);
    return 0;
  }
  load.requests = options.size("--requests", 200000);
  load.saves = options.size("--saves", 10);
  options.done();
  static char folder[] = "/tmp/enchilada-kv-XXXXXX";
  if (mkdtemp(folder) == nullptr) fail_errno(folder);
  std::atexit([] { std::filesystem::remove_all(folder); });
  compare_one("fork", load, folder);
  compare_one("snapshot", load, folder);
  std::printf("all saved files were consistent\n");
  return 0;
}
