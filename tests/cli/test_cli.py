#!/usr/bin/env python3
"""Tests of the `enchilada` command from outside, with a preload library that does nothing.

Bad input gives exactly one line on standard error, the right exit status, and leaves nothing behind. Signals, job
control and exit statuses are the program's. Arguments: the command, the idle library, a static program, and one
that runs its arguments without userfaultfd.
"""
import glob
import json
import os
import pathlib
import pty
import resource
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import unittest

ENCHILADA, LIBRARY, STATIC, WITHOUT_USERFAULTFD = (str(pathlib.Path(p).resolve()) for p in sys.argv[1:5])
del sys.argv[1:5]
ROOT = os.geteuid() == 0
NOBODY = 65534


def drop_root():
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="enchilada-cli-")
        self.path = self.folder.name
        os.chmod(self.path, 0o755)
        self.swap = os.path.join(self.path, "swap")
        os.mkdir(self.swap, 0o777)
        os.chmod(self.swap, 0o777)
        self.environment = dict(os.environ, ENCHILADA_PRELOAD_LIBRARY=LIBRARY, ENCHILADA_SWAP_DIR=self.swap)
        self.environment.pop("LD_PRELOAD", None)

    def tearDown(self):
        self.assertEqual(os.listdir(self.swap), [], "something is left in the swap directory")
        self.folder.cleanup()

    def call(self, *arguments, user=False, **more):
        more.setdefault("env", self.environment)
        if user and ROOT:
            more["preexec_fn"] = drop_root
        return subprocess.run([ENCHILADA, *arguments], capture_output=True, text=True, timeout=60, **more)

    def start(self, *arguments, **more):
        return subprocess.Popen([ENCHILADA, *arguments], env=self.environment, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, **more)

    def refused(self, status, words, *arguments, **more):
        """One line on standard error with these words, nothing on standard output, this status."""
        done = self.call(*arguments, **more)
        self.assertEqual(done.stdout, "", arguments)
        lines = done.stderr.splitlines()
        self.assertEqual(len(lines), 1, (arguments, done.stderr))
        self.assertTrue(lines[0].startswith("enchilada: "), lines)
        for word in words.split("|"):
            self.assertIn(word, lines[0])
        self.assertEqual(done.returncode, status, (arguments, done.stderr))

    def file(self, name, content, mode=0o755):
        path = os.path.join(self.path, name)
        with open(path, "wb") as f:
            f.write(content)
        os.chmod(path, mode)
        return path


class BadInput(Case):
    def test_arguments(self):
        table = [
            (2, "which command", []),
            (2, "bogus", ["bogus"]),
            (2, "--bogus", ["--bogus"]),
            (2, "which program", ["run"]),
            (2, "which program", ["run", "--"]),
            (2, "which program", ["run", "--ram", "64M", "--"]),
            (2, "--bogus", ["run", "--bogus", "--", "true"]),
            (2, "--ram", ["run", "--ram"]),
            (2, "--ram 0", ["run", "--ram", "0", "--", "true"]),
            (2, "--ram 0M", ["run", "--ram", "0M", "--", "true"]),
            (2, "--ram lots|64K", ["run", "--ram", "lots", "--", "true"]),
            (2, "--ram -1", ["run", "--ram=-1", "--", "true"]),
            (2, "--ram 12Q", ["run", "--ram", "12Q", "--", "true"]),
            (2, "--ram|not a size", ["run", "--ram", "", "--", "true"]),
            (2, "not a size", ["run", "--ram", "99999999999999999999", "--", "true"]),
            (2, "at least", ["run", "--ram", "64K", "--", "true"]),
            (2, "at least", ["run", "--ram", "1", "--", "true"]),
            (2, "at most", ["run", "--ram", "4096T", "--", "true"]),
            (2, "--set x|help", ["run", "--set", "x", "--", "true"]),
            (2, "no mechanism|color", ["run", "--set", "color=red", "--", "true"]),
            (2, "no mode|teleport|move", ["run", "--set", "transport=teleport", "--", "true"]),
            (2, "no mode", ["run", "--set", "transport=", "--", "true"]),
            (2, "no mode|list-3x", ["run", "--set", "swap_allocator=buddy", "--", "true"]),
            (2, "no mode|article", ["run", "--set", "preset=1999", "--", "true"]),
            (2, "--stats /nonexistent/x", ["run", "--stats", "/nonexistent/x", "--", "true"]),
            (2, "--stats", ["run", "--stats", "/", "--", "true"]),
            (2, "extra", ["doctor", "extra"]),
            (2, "subcommand", ["lab"]),
            (2, "which one|all", ["lab", "experiment"]),
            (2, "W99|lab list", ["lab", "experiment", "W99"]),
            (2, "--shard 3/2|1/4", ["lab", "experiment", "W9", "--shard", "3/2"]),
            (2, "--jobs", ["lab", "experiment", "W9", "--jobs", "0"]),
            (2, "/nonexistent/c", ["lab", "experiment", "W9", "--cells", "/nonexistent/c"]),
            (2, "/nonexistent/c", ["lab", "merge", "/nonexistent/c"]),
            (2, "no such design", ["lab", "explain", "linux25"]),
            (2, "which trace", ["lab", "replay"]),
            (2, "/nonexistent/t: cannot be opened", ["lab", "replay", "/nonexistent/t"]),
            (2, "lru2|--policy help", ["lab", "replay", "/dev/null", "--policy", "lru,lru2"]),
            (2, "--mem 12x", ["lab", "replay", "/dev/null", "--mem", "10%,12x"]),
            (2, "--mem 0%", ["lab", "replay", "/dev/null", "--mem", "0%"]),
            (2, "--page-size 0", ["lab", "replay", "/dev/null", "--page-size", "0"]),
            (2, "no references in it", ["lab", "replay", "/dev/null"]),
            (2, "/nonexistent/h", ["lab", "experiment", "W9", "--html", "/nonexistent/h"]),
            (2, "--html", ["lab", "report", "/nonexistent/r"]),
            (2, "/nonexistent/r", ["lab", "report", "/nonexistent/r", "--html", "-"]),
            (2, "/dev/null|not a report", ["lab", "report", "/dev/null", "--html", "-"]),
            (2, "/nonexistent/j", ["lab", "experiment", "W9", "--json", "/nonexistent/j"]),
        ]
        for status, words, arguments in table:
            with self.subTest(arguments):
                self.refused(status, words, *arguments)

    def test_swap(self):
        some_file = self.file("empty", b"", 0o644)
        table = [
            (2, "/nonexistent/place", ["/nonexistent/place"]),
            (2, "/nonexistent/place", ["/nonexistent/place:64M"]),
            (2, "not a size", [f"{self.swap}:much"]),
            (2, "holds nothing", [f"{self.swap}:0"]),
            (2, "holds nothing", [f"{self.swap}:100"]),
            (2, "empty", [""]),
            (2, "is empty|:SIZE", [some_file]),
            (2, "/dev/null|neither", ["/dev/null"]),
            (2, "/proc", ["/proc"]),
            (2, "at most 4", [self.swap] * 5),
        ]
        for status, words, specs in table:
            with self.subTest(specs):
                swaps = [a for spec in specs for a in ("--swap", spec)]
                self.refused(status, words, "run", *swaps, "--", "true")

    def test_file_size_limit_without_room_for_swap(self):
        for most in (100, 1 << 20):
            with self.subTest(most):
                self.refused(2, "size of files|ulimit -f unlimited", "run", "--", "true",
                             preexec_fn=lambda most=most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))

    def test_too_few_descriptors_are_one_line(self):
        for few in (4, 5, 9):
            with self.subTest(few=few):
                self.refused(2, f"only {few} open files|ulimit -n", "run", "--", "true",
                             preexec_fn=lambda few=few: resource.setrlimit(resource.RLIMIT_NOFILE, (few, few)))

    def test_swap_directory_without_permission(self):
        closed = os.path.join(self.path, "closed")
        os.mkdir(closed, 0o555)
        self.refused(2, closed + "|Permission", "run", "--swap", closed, "--", "true", user=True)
        locked = self.file("locked", b"\0" * 8192, 0o400)
        self.refused(2, locked + "|Permission", "run", "--swap", locked, "--", "true", user=True)

    def test_programs(self):
        elf32 = b"\x7fELF\x01\x01\x01" + b"\0" * 9 + struct.pack("<HH", 2, 3) + b"\0" * 100
        other = b"\x7fELF\x02\x01\x01" + b"\0" * 9 + struct.pack("<HH", 2, 183) + b"\0" * 100
        table = [
            (127, "no-such-program", "no-such-program"),
            (127, "No such file", "/no/such/program"),
            (127, "No such file", "./no-such-program"),
            (127, "empty", ""),
            (126, "directory", "/etc"),
            (126, "not executable", "/etc/passwd"),
            (127, "Not a directory", "/etc/passwd/x"),
            (2, "statically linked", STATIC),
            (2, "32-bit", self.file("elf32", elf32)),
            (126, "x86-64", self.file("arm", other)),
            (126, "cut short", self.file("short", b"\x7fELF\x02")),
            (126, "neither ELF", self.file("binary", b"\xca\xfe\xba\xbe\0\0\0\0")),
            (126, "/no/interpreter", self.file("script1", b"#!/no/interpreter -x\n")),
            (126, "interpreter", self.file("script2", b"#!\n")),
            (2, "statically linked", self.file("script3", f"#!{STATIC}\n".encode())),
        ]
        for status, words, program in table:
            with self.subTest(program):
                self.refused(status, words, "run", "--", program)

    def test_object_file(self):
        for path in glob.glob("/lib/modules/*/kernel/**/*.ko", recursive=True)[:1]:
            copy = self.file("module", pathlib.Path(path).read_bytes())
            self.refused(126, "object file", "run", "--", copy)

    @unittest.skipUnless(ROOT, "needs root to make such files")
    def test_set_id_and_capabilities(self):
        program = self.file("setuid", pathlib.Path("/bin/true").read_bytes())
        os.chown(program, NOBODY, NOBODY)
        os.chmod(program, 0o755 | stat.S_ISUID)
        self.refused(2, "setuid|LD_PRELOAD", "run", "--", program)
        os.chmod(program, 0o755 | stat.S_ISGID)
        self.refused(2, "setgid|LD_PRELOAD", "run", "--", program)
        capable = self.file("capable", pathlib.Path("/bin/true").read_bytes())
        # vfs_cap_data, revision 2: cap_net_raw permitted and effective
        os.setxattr(capable, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0))
        self.refused(2, "capabilities|LD_PRELOAD", "run", "--", capable, user=True)

    def test_library_missing(self):
        self.environment["ENCHILADA_PRELOAD_LIBRARY"] = "/nonexistent.so"
        self.refused(2, "/nonexistent.so", "run", "--", "true")

    def test_no_userfaultfd(self):
        call = [WITHOUT_USERFAULTFD, ENCHILADA]
        done = subprocess.run([*call, "run", "--", "true"], env=self.environment, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout, len(done.stderr.splitlines())), (2, "", 1), done.stderr)
        self.assertIn("userfaultfd", done.stderr)
        self.assertIn("seccomp", done.stderr)
        done = subprocess.run([*call, "doctor"], env=self.environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("seccomp", done.stdout)

    def test_swap_does_not_overwrite_data(self):
        text = b"irreplaceable\n" * 5000
        precious = self.file("precious", text, 0o644)
        self.refused(2, "mkswap|precious", "run", "--swap", f"{precious}:64M", "--", "true")
        self.refused(2, "mkswap|precious", "run", "--swap", precious, "--", "true")
        with open(precious, "rb") as file:
            self.assertEqual(file.read(), text)

    def test_swap_file_prepared_by_mkswap(self):
        marked = self.file("marked", b"x" * 4086 + b"SWAPSPACE2" + b"old contents" * 100_000, 0o644)
        for _ in range(2):  # the mark stays
            self.assertEqual(self.call("run", "-q", "--swap", f"{marked}:64M", "--ram", "4M", "--", "python3", "-c",
                                       "x = bytearray(range(256)) * 100000; print(sum(x[::4096]))").returncode, 0)
            with open(marked, "rb") as file:
                self.assertEqual(file.read(4096), b"x" * 4086 + b"SWAPSPACE2")

    def test_swap_file_in_use(self):
        named = self.file("named", b"", 0o644)
        first = self.start("run", "--swap", f"{named}:64M", "--", "sh", "-c", "echo up; read x", stdin=subprocess.PIPE)
        self.assertEqual(first.stdout.readline(), "up\n")
        self.refused(2, "in use", "run", "--swap", f"{named}:64M", "--", "true")
        first.communicate("\n")
        self.assertEqual(self.call("run", "-q", "--swap", f"{named}:64M", "--", "true").returncode, 0)


class Running(Case):
    def test_output_status_and_arguments(self):
        done = self.call("run", "--ram", "64M", "--", "sh", "-c", 'cat; echo "$0 $@"; exit 7', "a", "--ram", "--", "b c",
                         input="from stdin\n")
        self.assertEqual((done.returncode, done.stdout), (7, "from stdin\na --ram -- b c\n"))
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn("not managed", done.stderr)

    def test_without_the_dashes(self):
        done = self.call("run", "-q", "--ram", "64M", "echo", "--ram", "-q")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "--ram -q\n", ""))

    def test_argv0_and_path_lookup(self):
        done = self.call("run", "-q", "--", "sh", "-c", "tr '\\0' ' ' < /proc/$$/cmdline")
        self.assertTrue(done.stdout.startswith("sh -c"), done.stdout)

    def test_scripts(self):
        marked = self.file("marked", b"#!/bin/sh\necho marked $1\n")
        plain = self.file("plain", b"echo plain $1\n")
        self.assertEqual(self.call("run", "-q", "--", marked, "x").stdout, "marked x\n")
        self.assertEqual(self.call("run", "-q", "--", plain, "x").stdout, "plain x\n")

    def test_ended_by_signals(self):
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGINT):
            done = self.call("run", "-q", "--", "sh", "-c", f"ulimit -c 0; kill -{int(number)} $$")
            self.assertEqual(done.returncode, 128 + number)

    def test_preload_and_environment(self):
        self.environment["LD_PRELOAD"] = "libm.so.6"
        done = self.call("run", "-q", "--", "env")
        values = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
        self.assertEqual(values["LD_PRELOAD"], f"libm.so.6:{LIBRARY}")  # the user's come first, allocators too
        self.assertEqual(len(values["ENCHILADA_TREE"].split(":")), 5)

    def test_descriptors(self):
        done = self.call("run", "-q", "--", "ls", "-l", "/proc/self/fd")
        found = {int(line.split()[8]): line for line in done.stdout.splitlines() if "->" in line}
        low = [n for n in found if n < 32 and ("enchilada" in found[n] or self.swap in found[n])]
        self.assertEqual(low, [], "descriptors of ours among the low numbers")
        ours = [n for n in found if "enchilada-tree" in found[n] or self.swap in found[n]]
        self.assertEqual(len(ours), 2, done.stdout)
        self.assertTrue(all(n < 2048 for n in ours), ours)

    def test_small_descriptor_limit(self):
        done = self.call("run", "-q", "--", "sh", "-c", "ulimit -n; ls /proc/self/fd | wc -l",
                         preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.split()[0], "64")

    def test_soft_file_size_limit_is_raised(self):
        limit = (1 << 20, resource.RLIM_INFINITY)
        done = self.call("run", "-q", "--", "sh", "-c", "ulimit -S -f",
                         preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
        self.assertEqual((done.returncode, done.stdout), (0, "unlimited\n"), done.stderr)

    def test_stats_file(self):
        path = os.path.join(self.path, "stats.json")
        self.assertEqual(self.call("run", "-q", "--ram", "64M", "--stats", path, "--", "sh", "-c", "exit 3").returncode, 3)
        stats = json.loads(pathlib.Path(path).read_text())
        self.assertEqual((stats["exit_status"], stats["program"], stats["ram"]["limit_bytes"]), (3, "sh", 64 << 20))
        self.assertIn("vm_faults", stats["counters"])

    def test_ordinary_user(self):
        done = self.call("run", "--ram", "64M", "--", "id", "-u", user=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_forwards_signals_sent_to_it_alone(self):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1):
            script = f"trap 'echo got; exit 9' {int(number)}; echo up; while :; do sleep 0.05; done"
            run = self.start("run", "-q", "--", "sh", "-c", script, start_new_session=True)
            self.assertEqual(run.stdout.readline(), "up\n")
            run.send_signal(number)
            self.assertEqual(run.communicate(timeout=30)[0], "got\n")
            self.assertEqual(run.returncode, 9)

    def test_interrupt_from_a_terminal_reaches_the_program_once(self):
        script = "trap 'echo int; got=1' 2; echo up; until [ $got ]; do sleep 0.1; done; sleep 0.3; echo done; exit 5"
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(ENCHILADA, [ENCHILADA, "run", "--ram", "64M", "--", "sh", "-c", script], self.environment)
        output = b""
        while b"up" not in output:
            output += os.read(terminal, 1000)
        os.write(terminal, b"\x03")
        try:
            while chunk := os.read(terminal, 1000):
                output += chunk
        except OSError:
            pass
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
        self.assertEqual(os.waitstatus_to_exitcode(status), 5)
        self.assertEqual(output.count(b"int\r"), 1, output)
        self.assertIn(b"not managed", output)  # it outlived the interrupt to tell

    def test_stop_and_continue(self):
        run = self.start("run", "-q", "--", "sh", "-c", "echo up; read x; echo $x", stdin=subprocess.PIPE,
                         start_new_session=True)
        self.assertEqual(run.stdout.readline(), "up\n")
        os.killpg(run.pid, signal.SIGTSTP)
        os.killpg(run.pid, signal.SIGCONT)
        self.assertEqual(run.communicate("on\n", timeout=30)[0], "on\n")
        self.assertEqual(run.returncode, 0)

    def test_ignored_signals_stay_ignored(self):
        run = self.start("run", "-q", "--", "sh", "-c", "kill -HUP $$; echo alive",
                         preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        self.assertEqual(run.communicate(timeout=30)[0], "alive\n")

    def test_default_signals_are_default_in_the_program(self):
        done = self.call("run", "-q", "--", "grep", "-E", "^Sig(Cgt|Ign|Blk)", "/proc/self/status")
        native = subprocess.run(["grep", "-E", "^Sig(Cgt|Ign|Blk)", "/proc/self/status"], capture_output=True, text=True)
        self.assertEqual(done.stdout, native.stdout)

    def test_kill_of_the_command_leaves_the_program_running(self):
        done = os.path.join(self.path, "done")
        run = self.start("run", "-q", "--", "sh", "-c", f"echo $$; read x; ls -l /proc/self/fd > {done}.tmp; mv {done}.tmp {done}",
                         stdin=subprocess.PIPE)
        int(run.stdout.readline())
        run.kill()
        run.wait()
        run.stdin.write("\n")
        run.stdin.close()
        for _ in range(200):
            if os.path.exists(done):
                break
            time.sleep(0.05)
        text = pathlib.Path(done).read_text()
        self.assertIn("enchilada-tree", text)
        self.assertIn(self.swap, text)
        run.stdout.close()
        run.stderr.close()

    def test_uses_no_time_while_waiting(self):
        before = os.times()
        self.assertEqual(self.call("run", "-q", "--", "sleep", "2").returncode, 0)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        self.assertLess(used, 0.5)

    def test_help_version_doctor(self):
        for arguments, word in ((["--help"], "Examples"), (["run", "--help"], "--ram"), (["--version"], "enchilada "),
                                (["run", "--set", "help"], "transport"),
                                (["run", "--set", "help"], "swap_allocator"), (["doctor"], "userfaultfd")):
            done = self.call(*arguments)
            self.assertEqual((done.returncode, done.stderr), (0, ""), arguments)
            self.assertIn(word, done.stdout)

    def test_lab_replays_a_trace_through_policies_and_memories(self):
        trace = os.path.join(self.path, "belady")
        with open(trace, "w", encoding="ascii") as f:
            f.write("".join(f"{page}\n" for page in (1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5)))
        done = self.call("lab", "replay", trace, "--policy", "fifo,opt", "--mem", "12K,16K,60%", "--json", "-")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, "")
        runs = [(r["policy"], r["frames"], r["misses"]) for r in json.loads(done.stdout)["runs"]]
        self.assertEqual(runs, [("fifo", 3, 9), ("fifo", 4, 10), ("fifo", 3, 9), ("opt", 3, 7), ("opt", 4, 6), ("opt", 3, 7)])
        text = self.call("lab", "replay", trace, "--policy", "lru", "--mem", "3,12K", "--page-size", "1").stdout
        self.assertIn("12 references to 5 pages", text)

    def test_lab_reports_quietly_and_shards_merge_into_the_same_report(self):
        whole = self.call("lab", "experiment", "W9", "--json", "-")
        self.assertEqual((whole.returncode, whole.stderr), (0, ""))
        self.assertIn('"verdict"', whole.stdout)
        cells = [os.path.join(self.path, f"cells{i}") for i in (1, 2)]
        for i, name in enumerate(cells, 1):
            done = self.call("lab", "experiment", "W9", "--shard", f"{i}/2", "--cells", name)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
        pages = [os.path.join(self.path, name) for name in ("merged.html", "report.html")]
        merged = self.call("lab", "merge", *cells, "--json", "-", "--html", pages[0])
        self.assertEqual(merged.stdout, whole.stdout)
        report = os.path.join(self.path, "report.json")
        pathlib.Path(report).write_text(whole.stdout)
        done = self.call("lab", "report", report, "--html", pages[1])
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        first, second = (pathlib.Path(page).read_text() for page in pages)
        self.assertEqual(first, second)
        self.assertIn("enchilada lab experiment W9", first)

    def test_doctor_with_a_bad_swap_directory(self):
        self.environment["ENCHILADA_SWAP_DIR"] = "/nonexistent"
        done = self.call("doctor")
        self.assertEqual(done.returncode, 1)
        self.assertIn("ENCHILADA_SWAP_DIR", done.stdout)


if __name__ == "__main__":
    unittest.main(verbosity=1)
