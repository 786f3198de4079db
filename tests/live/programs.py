"""The real programs of the live tests and the benchmarks: how to prepare each, run it, and what it needs.

Each has a size for CI (seconds) and a full size (the issue's). `ram` is at most a quarter of what the program uses natively;
the runner checks that. A program's standard output is all that is compared, so each prints what it computed.
"""
import base64
import dataclasses
import pathlib
import random
import shutil

HERE = pathlib.Path(__file__).resolve().parent
DEMO_SQL = HERE.parent.parent / "tools" / "demo.sql"


@dataclasses.dataclass
class Job:
    """A prepared run."""
    command: list
    ram: str
    stdin: pathlib.Path | None = None
    env: dict = dataclasses.field(default_factory=dict)
    stderr_has: str = ""  # must be said on standard error, natively and managed


@dataclasses.dataclass
class Program:
    name: str
    needs: list  # commands that must be installed
    prepare: object  # (folder, full) -> Job
    timeout: float = 300.0  # against hangs: some machines need five times as long as others


def write_lines(path, count):
    """Text lines of about 41 bytes in random order."""
    state, mask = 3, (1 << 64) - 1
    with open(path, "w") as out:
        for start in range(0, count, 10_000):
            lines = []
            for _ in range(min(10_000, count - start)):
                state = (state * 6364136223846793005 + 1442695040888963407) & mask
                lines.append("%016x key %08d value %s\n" % (state, (state >> 20) % 10**8, "xxxxxxx"[: state >> 61]))
            out.writelines(lines)


def sqlite3(folder, full):
    rows = 460_000 if full else 25_000
    script = folder / "work.sql"
    script.write_text(DEMO_SQL.read_text().replace("460000", str(rows)))
    return Job(["sqlite3", "-batch", "-noheader", "-init", "/dev/null", ":memory:"], "96M" if full else "8M", stdin=script)


def sort_with(threads):
    def prepare(folder, full):
        # Merging touches lines in random order: nearly every one is a page-in at this ratio, whoever pages.
        write_lines(folder / "lines.txt", 6_000_000 if full else 110_000)
        ram = {1: "128M", 2: "128M", 4: "128M"} if full else {1: "3M", 2: "3M", 4: "4M"}
        return Job(["sort", "-S", "1G", f"--parallel={threads}", folder / "lines.txt"], ram[threads])
    return prepare


def python_objects(folder, full):
    # Two workers and the parent are charged for what they share: three processes within the same budget.
    return Job(["python3", HERE / "programs" / "objects.py", "500" if full else "60"], "128M" if full else "16M",
               env={"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"})


def perl_words(folder, full):
    return Job(["perl", HERE / "programs" / "words.pl", "500" if full else "10"], "128M" if full else "4M",
               env={"PERL_HASH_SEED": "0"})


def write_cplusplus(path, classes):
    """A C++ file that makes the compiler work: templates, maps, lambdas, one group for each class."""
    with open(path, "w") as out:
        out.write("#include <algorithm>\n#include <functional>\n#include <map>\n#include <memory>\n#include <sstream>\n"
                  "#include <string>\n#include <tuple>\n#include <unordered_map>\n#include <variant>\n#include <vector>\n")
        for i in range(classes):
            out.write(f"""
struct Key{i} {{ int a = {i}; std::string b; auto operator<=>(const Key{i}&) const = default; }};
template <int N> struct Step{i} {{ static int go(int x) {{ return Step{i}<N - 1>::go(x * {i + 3} + N) ^ N; }} }};
template <> struct Step{i}<0> {{ static int go(int x) {{ return x; }} }};
std::string work{i}(int n) {{
  std::map<Key{i}, std::vector<std::pair<int, std::string>>> m;
  std::unordered_map<std::string, std::variant<int, double, std::string>> u;
  for (int k = 0; k < n; k++) {{
    m[Key{i}{{k, std::to_string(k)}}].emplace_back(Step{i}<60>::go(k), "{i}");
    u.emplace(std::to_string(k * {i}), k % 2 ? decltype(u)::mapped_type(k) : decltype(u)::mapped_type("text"));
  }}
  std::function<int(int)> f = [&](int x) {{ return x < 2 ? x : f(x - 1) + static_cast<int>(m.size()); }};
  std::ostringstream out;
  for (auto& [k, v] : m) out << k.a << k.b << v.size() << f(k.a % 10) << u.size();
  return out.str();
}}
""")


def gcc(folder, full):
    write_cplusplus(folder / "large.cc", 260 if full else 8)
    return Job(["g++", "-std=c++20", "-O1", "-S", "-o", "-", folder / "large.cc"], "256M" if full else "40M")


def xz(folder, full):
    # -9 has tables of 64 MiB a thread and jumps in them at random: each position is a touch of an absent page. So the
    # input is small, and the memory large.
    (folder / "data").write_bytes(base64.b64encode(random.Random(5).randbytes(600_000 if full else 75_000)))
    size = (folder / "data").stat().st_size
    return Job(["xz", "-T2", "-9", f"--block-size={size // 2 + 1}", "-c", folder / "data"], "32M" if full else "28M")


def zstd(folder, full):
    write_lines(folder / "lines.txt", 6_000_000 if full else 1_600_000)
    return Job(["zstd", "-q", "-T2", "--long", "-c", folder / "lines.txt"], "64M" if full else "16M")


OVERRUN = r"""
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
int main(int argc, char** argv) { /* with an argument: writes one byte too many */
  char* blocks[1500];
  unsigned long sum = 0;
  for (int i = 0; i < 1500; i++) memset(blocks[i] = malloc(4000 + i * 8), i, 4000 + i * 8);
  for (int i = 0; i < 1500; i += 2) blocks[i] = realloc(blocks[i], 9000 + i * 8);
  for (int i = 0; i < 1500; i++) sum = sum * 31 + (unsigned char)blocks[i][i * 2];
  printf("sum %lu\n", sum);
  fflush(stdout);
  if (argc > 1) blocks[3][4000 + 24] = 1;
  for (int i = 0; i < 1500; i++) free(blocks[i]);
  puts("done");
  return 0;
}
"""


def electric_fence(program):
    def prepare(folder, full):
        env = {"EF_PROTECT_FREE": "0", "EF_ALIGNMENT": "8"}
        if program == "sqlite3":
            script = folder / "work.sql"
            script.write_text(DEMO_SQL.read_text().replace("460000", "1000").replace("k < 30000", "k < 150"))
            command = ["sqlite3", "-batch", "-noheader", "-init", "/dev/null", ":memory:"]
            return Job(["env", "LD_PRELOAD=libefence.so.0.0", *command], "4M", stdin=script, env=env,
                       stderr_has="Electric Fence")
        source, binary = folder / "overrun.c", folder / "overrun"
        source.write_text(OVERRUN)
        compile_c(source, binary)
        arguments = ["too-far"] if program == "overrun" else []
        return Job(["env", "LD_PRELOAD=libefence.so.0.0", binary, *arguments], "4M", env=env, stderr_has="Electric Fence")
    return prepare


def compile_c(source, binary):
    import subprocess
    subprocess.run(["gcc", "-O1", "-fno-builtin", "-o", str(binary), str(source)], check=True)
    binary.chmod(0o755)


def two_thread_sort(folder, full):
    binary = folder.parent / "two_thread_sort"  # put there by the runner
    return Job([binary, "1024" if full else "128", "2"], "64M" if full else "24M")


def redis(folder, full):
    # Each key about 1 KiB. After the fork of BGSAVE two processes are charged for what they share.
    return Job(["sh", HERE / "programs" / "redis_work.sh", "600000" if full else "60000"], "128M" if full else "16M")


# Measured only: the tests have their own ways to run these.
BENCH_PROGRAMS = [
    Program("redis", ["redis-server", "redis-benchmark", "redis-cli"], redis),
    Program("two_thread_sort", [], two_thread_sort),
]

PROGRAMS = [
    Program("sqlite3", ["sqlite3"], sqlite3),
    Program("sort_1", ["sort"], sort_with(1)),
    Program("sort_2", ["sort"], sort_with(2)),
    Program("sort_4", ["sort"], sort_with(4)),
    Program("python3", ["python3"], python_objects),
    Program("perl", ["perl"], perl_words),
    Program("gcc", ["g++"], gcc),
    Program("xz", ["xz"], xz),
    Program("zstd", ["zstd"], zstd),
    Program("electric_fence_sqlite3", ["sqlite3"], electric_fence("sqlite3")),
    Program("electric_fence_clean", ["gcc"], electric_fence("clean")),
    Program("electric_fence_overrun", ["gcc"], electric_fence("overrun")),
]


def missing(program):
    return [name for name in program.needs if not shutil.which(name)]
