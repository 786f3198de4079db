#!/usr/bin/env python3
"""Whole programs and page touches, side by side: alone on Linux, and under `enchilada run`. `make bench` runs it.

  ample      enough memory for both: what being managed costs. Native against enchilada with --ram of twice the need.
  pressure   a memory cgroup of --ram + 32M for both sides: Linux's own swap file against enchilada's. Needs root.
  touch      anonymous memory at 4:1 in order and at random, one and two threads, in the same cgroups. Needs root.

Both sides run in turn, one round after another, in the same sizes, with the page cache dropped before each run; medians are
compared. Output and exit status must be equal in every run. What Linux's OOM killer ends is counted, not timed. The table goes
to standard output, all figures to bench/out/NAME.json. Swap files, cgroups and processes are removed however it ends.
"""
import argparse
import atexit
import datetime
import json
import os
import pathlib
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "live"))
sys.dont_write_bytecode = True
import live_lib  # noqa: E402
import programs  # noqa: E402

BUILD = ROOT / "build" / "release"
GROUP = "enchilada-bench"
HEADROOM = 32 << 20
MIB = 1 << 20


def say(text=""):
    print(text, flush=True)


class Cleanup:
    """Undoes in reverse order what was done, once, also after Ctrl-C or SIGTERM."""

    def __init__(self):
        self.steps = []
        atexit.register(self.run)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: sys.exit(143))

    def add(self, step):
        self.steps.append(step)

    def run(self):
        while self.steps:
            try:
                self.steps.pop()()
            except OSError as error:
                print(f"cleaning up: {error}", file=sys.stderr)


class MemoryGroup:
    """A memory cgroup, version 1 or 2, with one limit for everything in it."""

    def __init__(self, limit, cleanup):
        self.version, parent = self.find()
        self.path = parent / f"{GROUP}-{os.getpid()}"
        if self.version == 2:
            control = parent / "cgroup.subtree_control"
            if "memory" not in control.read_text().split():
                control.write_text("+memory")
        self.path.mkdir(exist_ok=True)
        cleanup.add(self.remove)
        self.set_limit(limit)

    @staticmethod
    def find():
        if pathlib.Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists():
            return 1, pathlib.Path("/sys/fs/cgroup/memory")
        root = pathlib.Path("/sys/fs/cgroup")
        if (root / "cgroup.controllers").exists() and "memory" in (root / "cgroup.controllers").read_text().split():
            return 2, root
        raise live_lib.Skip("no memory cgroup controller at /sys/fs/cgroup (neither version 1 nor 2)")

    def set_limit(self, limit):
        (self.path / ("memory.limit_in_bytes" if self.version == 1 else "memory.max")).write_text(str(limit))

    def peak(self):
        try:
            return int((self.path / ("memory.max_usage_in_bytes" if self.version == 1 else "memory.peak")).read_text())
        except OSError:
            return 0

    def oom_kills(self):
        path = self.path / ("memory.oom_control" if self.version == 1 else "memory.events")
        return next((int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith("oom_kill ")), 0)

    def reset(self):
        try:
            (self.path / ("memory.max_usage_in_bytes" if self.version == 1 else "memory.peak")).write_text("0")
            (self.path / ("memory.force_empty" if self.version == 1 else "memory.reclaim")).write_text(
                "0" if self.version == 1 else "64G")
        except OSError:
            pass  # version 2 cannot always; the caches are dropped anyway

    def enter(self):
        """Words that put the command after them into the group."""
        return ["sh", "-c", f'echo $$ > {self.path}/cgroup.procs && exec "$@"', "sh"]

    def remove(self):
        if not self.path.exists():
            return
        for pid in (self.path / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        for _ in range(100):
            try:
                return self.path.rmdir()
            except OSError:
                time.sleep(0.1)
        print(f"cleaning up: {self.path} cannot be removed", file=sys.stderr)


class SwapFile:
    """A swap file that is on only while Linux's side runs."""

    def __init__(self, folder, size, cleanup):
        handle, name = tempfile.mkstemp(prefix="enchilada-bench-swap-", dir=folder)
        self.path = pathlib.Path(name)
        cleanup.add(self.remove)
        os.posix_fallocate(handle, 0, size)
        os.close(handle)
        self.path.chmod(0o600)
        subprocess.run(["/sbin/mkswap", self.path], check=True, capture_output=True)
        self.on = False

    def __enter__(self):
        subprocess.run(["/sbin/swapon", self.path], check=True)
        self.on = True

    def __exit__(self, *_):
        self.off()

    def off(self):
        if self.on:
            subprocess.run(["/sbin/swapoff", self.path], check=False)
            self.on = False

    def remove(self):
        self.off()
        self.path.unlink(missing_ok=True)


def drop_caches():
    if os.geteuid() == 0:
        os.sync()
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


def median(values):
    return statistics.median(values) if values else float("nan")


def spread(values):
    return f"{min(values):.2f}-{max(values):.2f}" if values else "-"


def figures(outcome):
    """The figures kept of one run."""
    kept = {"status": outcome.status, "seconds": round(outcome.seconds, 4), "cpu_seconds": round(outcome.cpu_seconds, 4),
            "peak_kib": outcome.peak_kib}
    if outcome.stats:
        kept["stats"] = {key: outcome.stats[key] for key in ("ram", "swap", "own", "transport", "counters")}
        kept["stats"]["fault_time"] = {k: v for k, v in outcome.stats["fault_time"].items() if k != "histogram"}
    return kept


class Comparison:
    """Rounds of both sides of one program."""

    def __init__(self, name, note=""):
        self.name, self.note = name, note
        self.sides = {"linux": [], "enchilada": []}
        self.killed = {"linux": 0, "enchilada": 0}
        self.wrong = []

    def add(self, side, outcome, reference):
        if outcome.status >= 128 or outcome.timed_out:
            self.killed[side] += 1
        elif reference and not outcome.same_output(reference):
            self.wrong.append(f"{side}: status {outcome.status}: {outcome.stderr[-300:]}")
        self.sides[side].append(outcome)

    def seconds(self, side):
        return [o.seconds for o in self.sides[side] if o.status < 128 and not o.timed_out]

    def ratio(self):
        linux, ours = self.seconds("linux"), self.seconds("enchilada")
        return median(ours) / median(linux) if linux and ours else float("nan")

    def row(self):
        def side(key):
            times = self.seconds(key)
            text = f"{median(times):8.2f} ({spread(times)})" if times else "       -"
            return text + (f" killed {self.killed[key]} of {len(self.sides[key])}" if self.killed[key] else "")
        verdict = f"{self.ratio():.2f}" if self.seconds("linux") and self.seconds("enchilada") else "-"
        if self.wrong:
            verdict += "  WRONG OUTPUT"
        return f"{self.name:<16} {side('linux'):<34} {side('enchilada'):<34} {verdict:>6}  {self.note}"

    def as_json(self):
        return {"name": self.name, "note": self.note, "ratio": self.ratio(), "wrong": self.wrong, "killed": self.killed,
                **{side: [figures(o) for o in outcomes] for side, outcomes in self.sides.items()}}


def header(title, left="Linux", right="enchilada"):
    say(f"\n{title}\n{'program':<16} {left + ', s (range)':<34} {right + ', s (range)':<34} {'ratio':>6}")


def prepared(args, bench):
    """(program, job) for what was asked."""
    shutil.copy2(BUILD / "live" / "two_thread_sort", bench.root)  # two_thread_sort() looks beside its folder
    chosen = [p for p in programs.PROGRAMS + programs.BENCH_PROGRAMS
              if not p.name.startswith("electric") and args.only in p.name]
    for program in chosen:
        if absent := programs.missing(program):
            say(f"{program.name}: not installed: {' '.join(absent)}")
            continue
        folder = bench.root / f"{program.name}.d"
        folder.mkdir(exist_ok=True)
        job = program.prepare(folder, args.full)
        job.ram = args.ram or job.ram
        yield program, job


def start(bench, job, front=(), stats_file=None, timeout=3600, sample=False):
    drop_caches()
    return live_lib.run([*front, *job.command], folder=bench.folder(None), stdin=job.stdin, env=job.env, timeout=timeout,
                        stats_file=stats_file, sample=sample)


def bench_ample(args, bench, results):
    header("Ample memory: native against enchilada (goal: at most 1.10, better 1.03)", "native")
    for program, job in prepared(args, bench):
        reference = start(bench, job)
        # Each process of a tree is charged for what it shares with others after fork: python's has three.
        ram = f"{max(64, 4 * reference.peak_kib // 1024 + 64)}M"
        comparison = Comparison(program.name)
        for _ in range(args.rounds):
            comparison.add("linux", start(bench, job), reference)
            front, stats_file = bench.command(ram, None, args.options)
            comparison.add("enchilada", start(bench, job, front, stats_file), reference)
        front, stats_file = bench.command(ram, None, args.options)
        watched = start(bench, job, front, stats_file, sample=True)  # sampling costs time: a run of its own
        if watched.stats and watched.tree_anon_peak_kib:
            share = watched.stats["ram"]["peak_bytes"] / 1024 / watched.tree_anon_peak_kib
            comparison.note = f"--ram {ram}; managed {100 * share:.0f} % of the peak anonymous memory"
        results.append({"section": "ample", "ram": ram, **comparison.as_json()})
        say(comparison.row())


def in_group(group, ram, front=()):
    group.set_limit(live_lib.parse_size(ram) + HEADROOM)
    group.reset()
    return [*group.enter(), *front]


def bench_pressure(args, bench, results, group, swap):
    header("Under pressure: Linux's swap file against enchilada, in a cgroup of --ram + 32M (goal: at most 1.00)", "Linux swap")
    for program, job in prepared(args, bench):
        reference = start(bench, job)
        comparison = Comparison(program.name, f"--ram {job.ram}, needs {reference.peak_kib >> 10} MiB")
        for _ in range(args.rounds):
            with swap:
                comparison.add("linux", start(bench, job, in_group(group, job.ram), timeout=args.timeout), reference)
            front, stats_file = bench.command(job.ram, None, args.options)
            comparison.add("enchilada", start(bench, job, in_group(group, job.ram, front), stats_file, args.timeout), reference)
        results.append({"section": "pressure", "ram": job.ram, **comparison.as_json()})
        say(comparison.row())


def phases(outcome_file):
    return {row["phase"]: row for row in map(json.loads, outcome_file.read_text().splitlines())}


def bench_touch(args, bench, results, group, swap):
    size, operations, ram = (1024, 50_000, "256M") if args.full else (256, 20_000, "64M")
    for threads in (1, 2):
        command = [BUILD / "live" / "anon_touch", str(size), str(operations), str(threads)]
        say(f"\nTouching {size} MiB of anonymous memory in {ram} (+ 32M), {threads} thread{'s' * (threads > 1)}; us an operation, medians")
        say(f"{'phase':<18} {'Linux swap':>12} {'enchilada':>12} {'ratio':>7}   p99: Linux, enchilada")
        rows = {"linux": [], "enchilada": []}
        for _ in range(args.rounds):
            for side in rows:
                drop_caches()
                folder = bench.folder(None)
                if side == "linux":
                    with swap:
                        outcome = live_lib.run([*in_group(group, ram), *command], folder=folder, timeout=args.timeout,
                                               keep=folder / "out")
                else:
                    front, _ = bench.command(ram, None, args.options)
                    outcome = live_lib.run([*in_group(group, ram, front), *command], folder=folder, timeout=args.timeout,
                                           keep=folder / "out")
                if outcome.status == 0:
                    rows[side].append(phases(folder / "out"))
                else:
                    say(f"  {side}: status {outcome.status}: {outcome.stderr[-200:]}")
        results.append({"section": "touch", "threads": threads, "size_mib": size, "ram": ram, **rows})
        for phase in rows["linux"][0] if rows["linux"] and rows["enchilada"] else []:
            if phase == "wrong values":
                continue
            linux, ours = ([r[phase]["us_per_operation"] for r in rows[side]] for side in rows)
            tails = [median([r[phase]["p99_us"] for r in rows[side]]) for side in rows]
            say(f"{phase:<18} {median(linux):>12.2f} {median(ours):>12.2f} {median(ours) / median(linux):>7.2f}   "
                f"{tails[0]:.0f}, {tails[1]:.0f}")


def machine():
    cpu = next((line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = next(line.split()[1] for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {"kernel": platform.release(), "cpu": cpu, "cpus": os.cpu_count(), "memory_mib": int(memory) >> 10, "commit": commit,
            "when": datetime.datetime.now().isoformat(timespec="minutes"), "load": os.getloadavg()}


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help="ample, pressure, touch (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="programs whose name contains this")
    parser.add_argument("--ram", help="--ram under pressure, instead of each program's own")
    parser.add_argument("--full", action="store_true", help="the sizes of the issue (hours); else those of CI")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one run")
    parser.add_argument("--enchilada", type=pathlib.Path, default=BUILD / "bin" / "enchilada")
    parser.add_argument("--option", dest="options", action="append", default=[], help="passed to enchilada run, e.g. --option=--force-copy")
    parser.add_argument("--swap-folder", default="/var/tmp", help="where Linux's swap file is made")
    parser.add_argument("--out", default="live", help="name of the JSON file in bench/out")
    args = parser.parse_args()
    args.sections = args.sections or ["ample", "pressure", "touch"]
    for section in args.sections:
        if section not in ("ample", "pressure", "touch"):
            parser.error(f"no such section: {section}")
    return args


def main():
    args = parse()
    cleanup = Cleanup()
    bench = live_lib.Bench(args.enchilada)
    cleanup.add(bench.close)
    facts, results = machine(), []
    say(f"{facts['cpus']} x {facts['cpu']}, {facts['memory_mib']} MiB, Linux {facts['kernel']}, load {facts['load'][0]:.1f}, "
        f"commit {facts['commit']}, {args.rounds} rounds")
    try:
        live_lib.usable(args.enchilada)
        if "ample" in args.sections:
            bench_ample(args, bench, results)
        if {"pressure", "touch"} & set(args.sections):
            if os.geteuid() != 0:
                raise live_lib.Skip("the cgroup and swap sections need root")
            swap = SwapFile(args.swap_folder, 4 << 30, cleanup)
            group = MemoryGroup(1 << 30, cleanup)  # removed first: swap cannot go while programs are in it
            facts["cgroup_version"] = group.version
            if "pressure" in args.sections:
                bench_pressure(args, again(bench, cleanup), results, group, swap)
            if "touch" in args.sections:
                bench_touch(args, bench, results, group, swap)
    except live_lib.Skip as skip:
        say(f"\nleft out: {skip}")
    except live_lib.Failure as failure:
        sys.exit(f"bench: {failure}")
    finally:
        if results:
            out = ROOT / "bench" / "out" / f"{args.out}.json"
            out.parent.mkdir(exist_ok=True)
            out.write_text(json.dumps({"machine": facts, "arguments": {"rounds": args.rounds, "full": args.full}, "results": results},
                                      indent=1) + "\n")
            say(f"\nall figures: bench/out/{out.name}")
    return 1 if any(r.get("wrong") for r in results) else 0


def again(bench, cleanup):
    """A second place, since each section prepares its own inputs."""
    other = live_lib.Bench(bench.enchilada)
    cleanup.add(other.close)
    return other


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
