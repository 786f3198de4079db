#!/usr/bin/env python3
"""Runs real programs and probes natively and under `enchilada run`, and compares what they print and how they end.

  run_live.py --list                         what there is
  run_live.py probe fork.grandchildren ...   probes by name; `probes` runs all, --only TEXT those whose name has TEXT
  run_live.py program sqlite3 ...            real programs by name; `programs` runs all
  run_live.py redis                          redis-server under redis-benchmark, BGSAVE in the middle
  run_live.py command                        limits, unmanageable children, statistics: the command around a program
  run_live.py kill9 [--times N]              kill -9 of members of a tree at random moments
  run_live.py soak {sort,two_thread_sort}    the programs that Linux kills; --times N, --ram SIZE

Each managed run is made as this user, then (when that is root) as nobody on the transport of older kernels (--force-copy);
--as root|nobody and --transport auto|copy choose one. --native-only runs nothing managed; --full takes the full sizes and all
combinations of user and transport.
Exit status: 0 all passed, 1 failures, 77 nothing could be tested here (the reason is printed).
"""
import argparse
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import command_live
import live_lib
import programs
import redis_live
from live_lib import Failure, Skip, say

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "release"
PROBE_RAM = "4M"  # what a probe touches is in proportion to it
OWN_SHARE, OWN_PER_PROCESS = 0.03, 8 << 20  # what the VM system may use itself


def variants(args, brief=False):
    """(name, user, options): the ways in which a managed run is repeated. `brief`: each user and each transport once."""
    users = [None, "nobody"] if live_lib.can_be_nobody() else [None]
    if args.as_user:
        users = [None if args.as_user in ("root", "self") else "nobody"]
    if args.transport == "copy":
        return [(f"{user or 'self'}, copy", user, ["--force-copy"]) for user in users]
    if brief and args.transport is None and len(users) == 2:
        return [("self", None, []), ("nobody, copy", "nobody", ["--force-copy"])]
    chosen = [(user or "self", user, []) for user in users]
    if args.transport is None:
        chosen.append((f"{users[0] or 'self'}, copy", users[0], ["--force-copy"]))
    return chosen


def require(condition, text):
    if not condition:
        raise Failure(text)


def explain(outcome, tail=1500):
    text = f"status {outcome.status}, {outcome.length} bytes of output"
    if outcome.timed_out:
        text = f"hung (killed after {outcome.seconds:.0f} s)\n{outcome.wreck}"
    return text + (f"\n--- its standard error:\n{outcome.stderr[-tail:]}" if outcome.stderr else "")


def check_bounded(stats, ram, paged=True):
    """The promises about memory, from the statistics of a managed run."""
    require(stats is not None, "no statistics were written")
    limit, peak = stats["ram"]["limit_bytes"], stats["ram"]["peak_bytes"]
    require(limit == live_lib.parse_size(ram), f"--ram {ram} became a limit of {limit} bytes")
    require(peak <= limit, f"resident peak {peak >> 10} KiB is over --ram {ram}")
    require(stats["processes"]["managed"] > 0, "no process was managed")
    require(stats["processes"]["alive"] == 0, f"{stats['processes']['alive']} processes still alive at the end")
    if paged:
        require(stats["counters"]["swappgsout"] > 0, "nothing was paged out: this run tested nothing")
    own = stats["own"]["bytes"]
    allowed = OWN_SHARE * stats["own"]["managed_bytes"] + OWN_PER_PROCESS * stats["processes"]["managed"]
    require(own <= allowed, f"the VM system itself used {own >> 10} KiB, allowed are {int(allowed) >> 10} KiB")


def verdict(title, began, note=""):
    say(f"ok      {title:<58} {time.monotonic() - began:6.1f} s  {note}".rstrip())


# ---- probes --------------------------------------------------------------------------------------------------------

def probe_catalogue(folder):
    """{"group.name": (program, kind)} from the probe programs that are built."""
    found = {}
    for program in sorted(folder.glob("probe_*")):
        listing = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout
        for line in listing.splitlines():
            name, _, kind = line.partition(" ")
            found[f"{program.name.removeprefix('probe_')}.{name}"] = (program, kind)
    return found


def run_probe(args, bench, name):
    program, kind = probe_catalogue(args.probes)[name]
    short = name.partition(".")[2]
    expected = 128 + getattr(signal, kind.split()[1]) if kind.startswith("dies") else 0
    ram = args.ram or PROBE_RAM
    env = {"ENCHILADA_PROBE_RAM": str(live_lib.parse_size(ram) >> 20)}

    def check(outcome, how):
        require(outcome.status == expected and (expected or outcome.head == b"OK\n"),
                f"{how}: {explain(outcome)} (expected status {expected}{'' if expected else ' and OK'})")

    began = time.monotonic()
    native = live_lib.run([program, short], folder=bench.folder(None), env=env, timeout=60)
    check(native, "natively")
    if args.native_only:
        return verdict(name, began)
    for how, user, options in variants(args, brief=not args.full):
        front, stats_file = bench.command(ram, user, [*options, *args.options])
        reached = bench.reachable(program, user)
        outcome = live_lib.run([*front, reached, short], folder=bench.folder(user), user=user, stats_file=stats_file,
                               env={**env, "ENCHILADA_PROBE_LIVE": "1"}, timeout=180)
        check(outcome, how)
        check_bounded(outcome.stats, ram, paged=kind == "paged")
    verdict(name, began)


# ---- programs ------------------------------------------------------------------------------------------------------

def run_program(args, bench, name):
    program = next(p for p in programs.PROGRAMS if p.name == name)
    if absent := programs.missing(program):
        raise Skip(f"{name}: not installed: {' '.join(absent)} (make deps)")
    began = time.monotonic()
    folder = bench.root / name
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    job = program.prepare(folder, args.full)
    command = [bench.reachable(word, "nobody") if isinstance(word, pathlib.Path) else word for word in job.command]
    timeout = program.timeout * (10 if args.full else 1)
    native = live_lib.run(command, folder=bench.folder(None), stdin=job.stdin, env=job.env, timeout=timeout)
    require(not native.timed_out and native.length > 0, f"natively: {explain(native)}")
    require(job.stderr_has in native.stderr, f"natively, standard error lacks '{job.stderr_has}': {explain(native)}")
    ratio = native.peak_kib * 1024 / live_lib.parse_size(job.ram)
    require(ratio >= 4, f"needs {native.peak_kib >> 10} MiB natively: that is only {ratio:.1f} times --ram {job.ram}")
    note = f"native {native.seconds:.1f} s, {native.peak_kib >> 10} MiB = {ratio:.1f} x {job.ram}"
    if args.native_only:
        return verdict(name, began, note)
    for how, user, options in variants(args, brief=not args.full):
        front, stats_file = bench.command(job.ram, user, [*options, *args.options])
        outcome = live_lib.run([*front, *command], folder=bench.folder(user), user=user, stdin=job.stdin, env=job.env,
                               stats_file=stats_file, timeout=timeout, sample=True)
        require(outcome.same_output(native), f"{how}: differs from native (status {native.status}, {native.length} bytes): "
                                             f"{explain(outcome)}")
        require(job.stderr_has in outcome.stderr, f"{how}: standard error lacks '{job.stderr_has}': {explain(outcome)}")
        check_bounded(outcome.stats, job.ram)
        check_sampled(outcome, job.ram)
        note += f"; {how} {outcome.seconds:.1f} s"
    verdict(name, began, note)


def check_sampled(outcome, ram):
    """The same bound seen from outside: anonymous memory of all processes, as /proc shows it, 20 times a second. Beside the
    managed memory it holds what was never ours to manage: static data, thread stacks, the loader's."""
    unmanaged = outcome.processes_peak * (16 << 20)
    allowed = live_lib.parse_size(ram) * (1 + OWN_SHARE) + unmanaged
    seen = outcome.tree_anon_peak_kib << 10
    require(seen <= allowed, f"/proc showed {seen >> 20} MiB of anonymous memory in {outcome.processes_peak} processes, "
                             f"with --ram {ram} at most {int(allowed) >> 20} MiB are explained")


# ---- soaks ---------------------------------------------------------------------------------------------------------

def soak(args, bench, name):
    """Programs that Linux kills in a memory cgroup although swap is nearly empty: ours must finish, every time."""
    folder = bench.root / "soak"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    if name == "sort":
        programs.write_lines(folder / "lines.txt", 6_000_000 if args.full else 150_000)
        command = ["sort", "-S", "1500M", "--parallel=2", folder / "lines.txt"]
        rams = [args.ram] if args.ram else (["256M", "128M", "64M"] if args.full else ["4M"])
    else:
        command = [bench.reachable(args.probes / "two_thread_sort", "nobody"), "1024" if args.full else "64", "2"]
        rams = [args.ram] if args.ram else (["256M", "128M", "64M"] if args.full else ["16M"])
    native = live_lib.run(command, folder=bench.folder(None), timeout=1200)
    require(native.status == 0, f"natively: {explain(native)}")
    for ram in rams if not args.native_only else []:
        for how, user, options in variants(args)[:1]:
            for attempt in range(args.times or (20 if args.full else 2)):
                began = time.monotonic()
                front, stats_file = bench.command(ram, user, [*options, *args.options])
                outcome = live_lib.run([*front, *command], folder=bench.folder(user), user=user, stats_file=stats_file,
                                       timeout=1800 if args.full else 240)
                require(outcome.same_output(native), f"{name} --ram {ram}, run {attempt + 1}: {explain(outcome)}")
                check_bounded(outcome.stats, ram)
                verdict(f"soak {name} --ram {ram}, run {attempt + 1}", began, f"native {native.seconds:.1f} s")


def kill9(args, bench, _):
    """A shell that starts managed children for ever; every so often one of the tree's processes is killed with -9. Nobody
    hangs, the others' data stay right, and when the tree is gone nothing of it is left."""
    times = args.times or 1000
    program = bench.reachable(args.probes / "probe_fork", "nobody")
    script = (f'i=0; while [ $i -lt 100000 ]; do "{program}" --child work $i & "{program}" --child work $((i+1)); wait; '
              f'i=$((i+2)); done; exit 0')
    env = {"ENCHILADA_PROBE_RAM": "4"}
    generator = random.Random(args.seed)
    killed, trees = 0, 0
    began = time.monotonic()
    if args.native_only:
        return verdict("kill9", began, "nothing to do natively")
    swap_folder = bench.folder(None)
    while killed < times:
        trees += 1
        front, _ = bench.command("16M", None, args.options)
        mark = f"kill9-{os.getpid()}-{trees}"
        environment = {**os.environ, **env, live_lib.MARK: mark, "ENCHILADA_SWAP_DIR": str(swap_folder)}
        tree = subprocess.Popen([*map(str, front), "sh", "-c", script], env=environment, stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        reader = threading.Thread(target=lambda pipe=tree.stderr: tree_errors.append(pipe.read()), daemon=True)
        tree_errors = []
        reader.start()
        for _ in range(generator.randrange(10, 40)):  # some members; at last the launcher itself or its shell
            if tree.poll() is not None or killed >= times:
                break
            time.sleep(generator.random() * 0.08)
            members = [pid for pid in live_lib.descendants(tree.pid) if pid != tree.pid][1:]
            if members:
                try:
                    os.kill(generator.choice(members), signal.SIGKILL)
                    killed += 1
                except ProcessLookupError:
                    pass
        if tree.poll() is not None:
            reader.join(timeout=5)
        require(tree.poll() is None, f"the tree ended by itself with {tree.returncode}: {tree_errors}")
        # Nobody is blocked: within some seconds new children come and go.
        seen = set(live_lib.descendants(tree.pid))
        until = time.monotonic() + 20
        fresh = set()
        while time.monotonic() < until and not fresh:
            time.sleep(0.02)
            fresh = set(live_lib.descendants(tree.pid)) - seen
        require(fresh, "after kill -9 nobody gets on:\n" + live_lib.describe_processes(tree.pid))
        require(live_lib.users_of(swap_folder), "swap is not where this test looks for it")
        # The end, by kill -9 of the launcher, or of everything at once.
        victims = [tree.pid] if generator.random() < 0.5 else live_lib.descendants(tree.pid)
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        tree.wait(timeout=60)
        for pid in live_lib.marked_processes(mark):  # orphans of a killed launcher may live on: they are whole programs
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        live_lib.leftovers(mark)
    left = [p.name for p in swap_folder.iterdir()]
    require(not left, f"left in the swap folder: {left}")
    until = time.monotonic() + 10  # the killed may still be closing their files
    while (users := live_lib.users_of(swap_folder)) and time.monotonic() < until:
        time.sleep(0.02)
    require(not users, f"swap of trees that are gone is still open in processes {users}")
    verdict("kill9", began, f"{killed} processes killed in {trees} trees, seed {args.seed}")


# ---- main ----------------------------------------------------------------------------------------------------------

def plan(args):
    """[(function, argument)] for what was asked."""
    if args.what == "probes":
        return [(run_probe, name) for name in probe_catalogue(args.probes) if args.only in name]
    if args.what == "probe":
        known = probe_catalogue(args.probes)
        for name in args.names:
            if name not in known:
                raise Failure(f"no such probe: {name}")
        return [(run_probe, name) for name in args.names]
    if args.what == "programs":
        return [(run_program, p.name) for p in programs.PROGRAMS if args.only in p.name]
    if args.what == "program":
        known = [p.name for p in programs.PROGRAMS]
        for name in args.names:
            if name not in known:
                raise Failure(f"no such program: {name} (there are {', '.join(known)})")
        return [(run_program, name) for name in args.names]
    if args.what == "redis":
        return [(redis_live.run_redis, "redis")]
    if args.what == "command":
        return [(command_live.run_checks, "command")]
    if args.what == "kill9":
        return [(kill9, "kill9")]
    if args.what == "soak":
        return [(soak, name) for name in args.names or ["sort", "two_thread_sort"]]
    raise Failure(f"what is '{args.what}'? run_live.py --help")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--enchilada", type=pathlib.Path, default=BUILD / "bin" / "enchilada")
    parser.add_argument("--probes", type=pathlib.Path, default=BUILD / "live", help="folder of the probe programs")
    parser.add_argument("--native-only", action="store_true")
    parser.add_argument("--full", action="store_true", help="the sizes of the issue: minutes to hours")
    parser.add_argument("--as", dest="as_user", choices=["root", "self", "nobody"])
    parser.add_argument("--transport", choices=["auto", "copy"])
    parser.add_argument("--option", dest="options", action="append", default=[],
                        help="passed to enchilada run, e.g. --option=--compressed=2M")
    parser.add_argument("--only", default="", help="text in the names")
    parser.add_argument("--times", type=int, default=0)
    parser.add_argument("--ram", default="")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    args.enchilada, args.probes = args.enchilada.resolve(), args.probes.resolve()
    return args


def main():
    args = parse()
    if args.list:
        say("programs: " + " ".join(p.name for p in programs.PROGRAMS) + " redis")
        say("probes:   " + " ".join(probe_catalogue(args.probes)))
        return 0
    failed = skipped = passed = 0
    bench = live_lib.Bench(None if args.native_only else args.enchilada)
    try:
        if not args.native_only:
            live_lib.usable(args.enchilada)
        shutil.copy2(args.probes / "two_thread_sort", bench.root) if (args.probes / "two_thread_sort").exists() else None
        for function, name in plan(args):
            try:
                function(args, bench, name)
                passed += 1
            except Failure as failure:
                say(f"FAILED  {name}: {failure}")
                failed += 1
            except Skip as skip:
                say(f"skipped {skip}")
                skipped += 1
    except Failure as failure:
        say(f"FAILED  {failure}")
        failed += 1
    except Skip as skip:
        say(f"skipped {skip}")
        skipped += 1
    finally:
        bench.close()
    if passed + failed + skipped > 1:
        say(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0 if passed else 77


if __name__ == "__main__":
    sys.exit(main())
