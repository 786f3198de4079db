// Probes of what languages and their libraries build on: non-local jumps, exceptions, containers, loading
// code at run time.
#include <dlfcn.h>
#include <link.h>
#include <locale.h>
#include <setjmp.h>

#include <algorithm>
#include <fstream>
#include <future>
#include <map>
#include <memory>
#include <numeric>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "probe.h"

using namespace probe;

PROBE(setjmp_from_the_heap) {
  auto* buffer = reinterpret_cast<jmp_buf*>(heap(sizeof(jmp_buf)));
  volatile int returned = 0;
  if (setjmp(*buffer) < 5) {
    push_out();
    returned = returned + 1;
    longjmp(*buffer, returned);
  }
  EXPECT_EQ(static_cast<int>(returned), 5);
}

PROBE(exceptions) {
  struct Big : std::runtime_error {
    std::vector<uint64_t> data;
    explicit Big(size_t n) : std::runtime_error("big"), data(n) { fill(data.data(), n * 8, n); }
  };
  for (int i = 0; i < 30; i++) {
    try {
      std::string on_the_way(1000, 'x');
      [](int n) {
        auto guard = std::make_unique<std::vector<int>>(1000, n);
        if (n % 10 == 0) push_out();
        throw Big(20000 + static_cast<size_t>(n));
      }(i);
    } catch (const Big& big) {
      if (i % 7 == 0) push_out();
      EXPECT_PATTERN(big.data.data(), big.data.size() * 8, big.data.size());
    }
  }
}

PROBE(containers_and_sorting) {
  const size_t count = 2 * ram() / 8;
  std::vector<uint64_t> numbers;
  for (size_t i = 0; i < count; i++) numbers.push_back(i * 0x9E3779B97F4A7C15ull >> 20);
  std::sort(numbers.begin(), numbers.end());
  EXPECT(std::is_sorted(numbers.begin(), numbers.end()));
  std::unordered_map<uint64_t, std::string> words;
  for (size_t i = 0; i < ram() / 160; i++)
    words.emplace(i * 2654435761u, std::to_string(i) + " and some more text");
  for (size_t i = 0; i < ram() / 160; i += 3)
    EXPECT(words.at(i * 2654435761u).starts_with(std::to_string(i)));
  std::map<std::string, int> tree;
  for (int i = 0; i < 20000; i++) tree[std::to_string(i * 7919 % 20000)] = i;
  EXPECT_EQ(tree.size(), 20000u);
}

PROBE(strings_streams_and_regular_expressions) {
  std::ostringstream out;
  for (std::streamoff at = 0; at < static_cast<std::streamoff>(2 * ram()); at = out.tellp())
    out << "key=" << at << ";\n";
  const std::string text = out.str();
  std::istringstream in(text);
  std::string line;
  size_t offset = 0, lines = 0;
  while (std::getline(in, line)) {
    if (lines++ % 5000 == 0) {
      std::smatch match;
      EXPECT(std::regex_match(line, match, std::regex("key=([0-9]+);")) &&
             match[1] == std::to_string(offset));
    }
    offset += line.size() + 1;
  }
  EXPECT_EQ(offset, text.size());
  EXPECT(setlocale(LC_ALL, "C.UTF-8") != nullptr || setlocale(LC_ALL, "C") != nullptr);
}

PROBE(code_loaded_at_run_time) {
  for (int i = 0; i < 5; i++) {
    char* name = heap_string("libm.so.6");
    char* symbol = heap_string("cos");
    push_out();
    void* library = dlopen(name, RTLD_NOW);
    EXPECT(library != nullptr);
    auto cosine = reinterpret_cast<double (*)(double)>(dlsym(library, symbol));
    EXPECT(cosine != nullptr && cosine(0.0) == 1.0);
    EXPECT(dlclose(library) == 0);
  }
  EXPECT(dlopen("/no/such/library.so", RTLD_NOW) == nullptr && dlerror() != nullptr);
  int objects = 0;
  dl_iterate_phdr(
      [](dl_phdr_info*, size_t, void* n) {
        ++*static_cast<int*>(n);
        return 0;
      },
      &objects);
  EXPECT(objects > 2);
}

PROBE(futures_and_tasks) {
  std::vector<std::future<std::vector<uint64_t>>> results;
  const size_t each = ram() / 4 / 8;
  for (uint64_t i = 0; i < 12; i++) {
    results.push_back(std::async(std::launch::async, [=] {
      std::vector<uint64_t> v(each);
      std::iota(v.begin(), v.end(), i);
      std::reverse(v.begin(), v.end());
      return v;
    }));
  }
  for (uint64_t i = 0; i < 12; i++) {
    const auto v = results[i].get();
    EXPECT_EQ(std::accumulate(v.begin(), v.end(), uint64_t{0}), each * i + each * (each - 1) / 2);
  }
}

PROBE(environment_and_exit_handlers) {
  for (int i = 0; i < 2000; i++)
    EXPECT(setenv(("PROBE_" + std::to_string(i)).c_str(), std::string(500, 'v').c_str(), 1) == 0);
  push_out();
  EXPECT(strlen(getenv("PROBE_1234")) == 500);
  pid_t child = fork();
  if (child == 0) {
    static char* p;
    p = heap(ram());
    fill(p, ram(), 1);
    atexit([] {
      push_out();
      if (first_wrong(p, ram(), 1) >= 0) _exit(3);
    });
    exit(0);
  }
  EXPECT_CHILD_OK(child);
}

PROBE(files_read_whole) {
  std::string path = scratch_folder() + "/probe-file-" + std::to_string(getpid());
  std::string content(3 * ram(), 'a');
  for (size_t i = 0; i < content.size(); i += 64) content[i] = static_cast<char>('a' + i / 64 % 26);
  std::ofstream(path, std::ios::binary) << content;
  std::ifstream file(path, std::ios::binary);
  std::string back((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  unlink(path.c_str());
  EXPECT(back == content);
}
