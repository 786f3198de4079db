#!/usr/bin/env python3
"""The long runs that CI cannot afford; each stops at its first failure. Hours in all.

  sort      GNU sort and the two-thread sort finish 20 of 20 at 256M, 128M and 64M, where Linux kills them now and then
  kill9     1,000 kill -9 of members of process trees at random moments: nobody hangs, nothing is left
  seeds     the random model tests with more seeds: --seeds N (default 1,000,000)
  regions   the library's random histories with more seeds (--region-seeds N, default 5,000), and a tree of 10,000 branches
  programs  the real programs at the sizes of the issue, as root and as nobody, both transports

Usage: soak.py [sort] [kill9] [seeds] [regions] [programs] [--seeds N] [--region-seeds N]
"""
import argparse
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LIVE = [sys.executable, str(ROOT / "tests" / "live" / "run_live.py"), "--full"]


def steps(args):
    every = {
        "sort": [(LIVE + ["soak", "sort", "--times", "20"], {}), (LIVE + ["soak", "two_thread_sort", "--times", "20"], {})],
        "kill9": [(LIVE + ["kill9", "--times", "1000"], {})],
        "seeds": [(["ctest", "--test-dir", str(ROOT / "build" / "release"), "-R", "^model$", "--output-on-failure", "--timeout",
                    "1000000"], {"ENCHILADA_SEEDS": str(args.seeds)})],
        "regions": [(["ctest", "--test-dir", str(ROOT / "build" / "release"), "-R", "^runtime_library$", "--output-on-failure",
                      "--timeout", "1000000"], {"ENCHILADA_SEEDS": str(args.region_seeds), "ENCHILADA_BRANCHES": "10000"})],
        "programs": [(LIVE + ["programs"], {}), (LIVE + ["redis"], {})],
    }
    for name in args.what or list(every):
        for command, env in every[name]:
            yield name, command, env


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["sort", "kill9", "seeds", "regions", "programs", []])
    parser.add_argument("--seeds", type=int, default=1_000_000)
    parser.add_argument("--region-seeds", type=int, default=5000)
    args = parser.parse_args()
    for name, command, env in steps(args):
        began = time.monotonic()
        print(f"== {name}: {' '.join(command)}", flush=True)
        code = subprocess.call(command, env={**os.environ, **env})
        print(f"== {name}: status {code} after {time.monotonic() - began:.0f} s", flush=True)
        if code != 0:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
