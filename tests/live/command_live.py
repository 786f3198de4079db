"""What `enchilada run` itself does around a program that it really manages: limits that it was started with, programs that
cannot be managed, statistics that cannot be written. (tests/cli has what needs no managed program.)

Each check runs the command under a shell, which sets the limits.
"""
import pathlib
import shlex

import live_lib
from live_lib import Failure

# 24 MiB in --ram 6M, with a fork, and one allocation that is too large.
WORK = """
import os, resource
x = bytearray(24 << 20)
for i in range(0, len(x), 4096): x[i] = i // 4096 % 251
child = os.fork()
wrong = sum(x[i] != i // 4096 % 251 for i in range(0, len(x), 4096))
if child == 0: os._exit(1 if wrong else 0)
print(wrong, os.waitpid(child, 0)[1])
try:
    bytearray(700 << 20)
    print('got too much')
except MemoryError:
    print('refused')
print([resource.getrlimit(r)[0] for r in (resource.RLIMIT_DATA, resource.RLIMIT_AS)])
"""


class Checks:
    """Runs of one command line each; `check_*` are the tests."""

    def __init__(self, args, bench):
        self.args, self.bench = args, bench

    def run(self, limits, command, user=None, options=(), stats=None):
        front, stats_file = self.bench.command("6M", user, options)
        front = [stats if stats and w == stats_file else w for w in front]
        line = f"{limits} exec {shlex.join(str(w) for w in [*front, *command])}"
        outcome = live_lib.run(["sh", "-c", line], folder=self.bench.folder(user), user=user, stats_file=stats_file, timeout=120)
        outcome.text = outcome.head.decode(errors="replace")
        return outcome

    @staticmethod
    def require(condition, outcome, what):
        if not condition:
            raise Failure(f"{what}: status {outcome.status}, printed {outcome.text!r}, said {outcome.stderr[-800:]!r}")

    def users(self):
        return [None, "nobody"] if live_lib.can_be_nobody() else [None]

    def check_data_limit(self):
        """ulimit -d, which the kernel would apply to the window, and which no program of a user can lift."""
        for user in self.users():
            for options in ([], ["--force-copy"]):
                got = self.run("ulimit -d 400000;", ["/usr/bin/python3", "-c", WORK], user, options)
                self.require(got.status == 0 and got.text == f"0 0\nrefused\n[{400000 * 1024}, -1]\n", got, "ulimit -d")
                self.require(got.stats["counters"]["swappgsout"] > 0, got, "nothing was paged out")
                self.require(got.stats["processes"]["managed"] == 2, got, "not both were managed")

    def check_soft_address_limit(self):
        for user in self.users():
            got = self.run("ulimit -S -v 400000;", ["/usr/bin/python3", "-c", WORK], user)
            self.require(got.status == 0 and got.text.startswith("0 0\nrefused\n"), got, "ulimit -S -v")

    def check_hard_address_limit(self):
        got = self.run("ulimit -v 400000;", ["true"], self.users()[-1])
        self.require(got.status == 2 and "ulimit -v unlimited" in got.stderr and len(got.stderr.splitlines()) == 1, got, "ulimit -v")

    def check_static_children(self):
        static = pathlib.Path(self.args.enchilada).parent / "cli_test_static"
        static = self.bench.reachable(static, self.users()[-1])
        script = self.bench.root / "script"
        script.write_text(f"#!{static}\n")
        script.chmod(0o755)
        ways = [f"{static}; {static}", f"{static}; {script}", f"{static}; exec {static}",
                f"{static}; /usr/bin/python3 -c 'import os; os.waitpid(os.posix_spawn(\"{static}\", [\"x\"], os.environ), 0)'"]
        for way in ways:
            for options in ([], ["-q"]):
                got = self.run("", ["sh", "-c", way], self.users()[-1], options)
                lines = [line for line in got.stderr.splitlines() if "could not be managed" in line]
                self.require(len(lines) == 1 and "2 programs" in lines[0] and str(static) in lines[0] and "static" in lines[0],
                             got, f"static children by '{way}'")
                self.require(got.stats["processes"]["unmanaged"] == 2, got, "not counted")
        got = self.run("", ["sh", "-c", "/bin/true; /bin/nothing; exec /etc/passwd"], None, ["-q"])
        self.require("managed" not in got.stderr and got.stats["processes"]["unmanaged"] == 0, got, "all were managed")

    def check_statistics_that_cannot_be_written(self):
        got = self.run("", ["true"], None, ["-q"], stats="/dev/full")
        self.require(got.status == 2 and "--stats /dev/full" in got.stderr, got, "--stats")
        got = self.run("", ["sh", "-c", "exit 5"], None, ["-q"], stats="/dev/full")
        self.require(got.status == 5 and "--stats /dev/full" in got.stderr, got, "--stats, and the program's own status")


def run_checks(args, bench, name):
    import run_live
    import time
    checks = Checks(args, bench)
    for method in sorted(m for m in dir(checks) if m.startswith("check_")):
        began = time.monotonic()
        getattr(checks, method)()
        run_live.verdict(f"command, {method[6:].replace('_', ' ')}", began)
