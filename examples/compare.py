#!/usr/bin/env python3
"""Runs out_of_core both ways in the same memory cgroup (RAM + 32M), in turn, and prints medians. Needs root.

Without the cgroup the page cache would hold mmap's whole file, and there would be nothing to compare.
Usage: examples/compare.py [--ram-mib 32] [--ratio 10] [--rounds 3] [--build build/release]
"""
import argparse
import pathlib
import re
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench"))
sys.dont_write_bytecode = True
import bench_live  # noqa: E402

TIMES = re.compile(r"^(region|mmap) +([0-9.]+) s, digest ([0-9a-f]+)$")


def run_once(program, what, side, ram, ratio, group):
    command = [*group.enter(), program, what, "--with", side, "--ram", f"{ram}M", "--data", f"{ram * ratio}M"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    match = TIMES.match(done.stdout.strip())
    if done.returncode != 0 or not match:
        sys.exit(f"{what} with {side}: status {done.returncode}: {done.stdout}{done.stderr}")
    return float(match[2]), match[3]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ram-mib", type=int, default=32)
    parser.add_argument("--ratio", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "release")
    options = parser.parse_args()
    program = options.build / "examples" / "example_out_of_core"
    try:
        group = bench_live.MemoryGroup((options.ram_mib + 32) << 20, bench_live.Cleanup())
    except (bench_live.live_lib.Skip, OSError) as reason:
        sys.exit(f"a memory cgroup is needed (root): {reason}")
    for what in ("sort", "bfs"):
        seconds = {"mmap": [], "region": []}
        digests = set()
        for _ in range(options.rounds):
            for side, times in seconds.items():
                took, digest = run_once(program, what, side, options.ram_mib, options.ratio, group)
                times.append(took)
                digests.add(digest)
        if len(digests) != 1:
            sys.exit(f"{what}: the sides disagree")
        mmap, region = (statistics.median(seconds[side]) for side in ("mmap", "region"))
        print(f"{what:5} {options.ram_mib * options.ratio} MiB in {options.ram_mib} MiB: mmap {mmap:.2f} s, region {region:.2f} s, "
              f"ratio {region / mmap:.2f}", flush=True)


if __name__ == "__main__":
    main()
