#!/usr/bin/env python3
"""Builds and tests everything that CI looks at, and ends with one plain line: 'N passed, N failed'.

  release   all tests: unit, model (random seeds against the flat oracle), tree, cli, live (real programs)
  asan      the engine's tests under AddressSanitizer and UndefinedBehaviorSanitizer; the tests choose fewer seeds there
  tsan      the engine's tests under ThreadSanitizer, likewise
  clang     Clang's warnings and lock analysis (-Wthread-safety -Werror) on the sources that the sanitizer builds, which are
            Clang's too, have not compiled yet; it stops short of making code, and so takes half the time

A gtest program counts with each of its tests, any other ctest entry as one; a build that fails counts as one failure.
Usage: test.py [--only release,asan,...] [--checks] [ctest arguments for every preset, e.g. -R model]
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as xml

ROOT = pathlib.Path(__file__).resolve().parent.parent
JOBS = os.environ.get("JOBS") or str(os.cpu_count() or 2)
SANITIZER_ENV = {"asan": {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0", "UBSAN_OPTIONS": "print_stacktrace=1"},
                 "tsan": {"TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1"}}
PRESETS = ["release", "asan", "tsan", "clang"]


def say(text):
    print(text, flush=True)


def logged(preset, log, *command):
    """Runs a command, and prints the end of what it says only when it fails."""
    path = ROOT / "build" / preset / log
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as out:
        code = subprocess.call(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
    if code:
        say(path.read_text(errors="replace")[-6000:])
    return code == 0


def configure(preset):
    """Only the first time: from then on ninja runs cmake itself when a list file changes."""
    return ((ROOT / "build" / preset / "build.ninja").exists()
            or logged(preset, "configure.log", "cmake", "--preset", preset))


def build(preset):
    return configure(preset) and logged(preset, "build.log", "cmake", "--build", "--preset", preset, "--", f"-j{JOBS}")


def compile_commands(preset):
    """{source: (folder, arguments)} of what the preset compiles."""
    entries = json.loads((ROOT / "build" / preset / "compile_commands.json").read_text())
    return {entry["file"]: (entry["directory"], shlex.split(entry["command"])) for entry in entries}


def check_with_clang(sources_done):
    """Lets Clang read every source of its preset but those that have been compiled by it already."""
    # Always anew: nothing is built here, so ninja would not notice a new source.
    if not logged("clang", "configure.log", "cmake", "--preset", "clang"):
        return False

    def read(directory, arguments):
        where = arguments.index("-o")
        words = [*arguments[:where], *arguments[where + 2:], "-fsyntax-only"]
        return subprocess.run(words, cwd=directory, capture_output=True, text=True)

    # What the build itself generates is not there: this builds nothing.
    todo = [command for source, command in compile_commands("clang").items()
            if source not in sources_done and os.path.exists(source)]
    with concurrent.futures.ThreadPoolExecutor(int(JOBS)) as pool:
        failures = [done.stderr for done in pool.map(lambda command: read(*command), todo) if done.returncode]
    for text in failures:
        say(text[-6000:])
    say(f"== clang: read {len(todo)} sources, {len(failures)} with errors")
    return not failures and len(todo) > 0


def count_gtest(folder):
    """{program stem: (passed, failed)} from the XML reports that gtest programs wrote."""
    counts = {}
    for report in folder.glob("*.xml"):
        try:
            suite = xml.parse(report).getroot()
        except xml.ParseError:
            continue  # it died while writing: ctest says so
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = sum(1 for case in suite.iter("testcase") if case.get("result") in ("skipped", "suppressed"))
        counts[report.stem] = (int(suite.get("tests", 0)) - failed - skipped, failed)
    return counts


def last_words(case):
    """Of a ctest entry that failed: how long it took, and the end of what it printed. Repeated below everything, where it
    is still seen when a long log is cut in the middle."""
    lines = (case.findtext("system-out") or "").rstrip().splitlines()[-15:]
    return f"  after {float(case.get('time') or 0):.0f} s" + "".join(f"\n    {line[:300]}" for line in lines)


def run_ctest(preset, extra):
    """Runs ctest and returns (passed, failed, skipped, names of failures)."""
    folder = ROOT / "build" / preset
    reports = folder / "gtest-reports"
    shutil.rmtree(reports, ignore_errors=True)
    junit = folder / "ctest.xml"
    junit.unlink(missing_ok=True)
    env = dict(os.environ, GTEST_OUTPUT=f"xml:{reports}/", GTEST_BRIEF="1", **SANITIZER_ENV.get(preset, {}))
    command = ["ctest", "--test-dir", str(folder), "--output-on-failure", "--no-tests=error", "-j", JOBS,
               "--output-junit", str(junit), "--timeout", "1800", *extra]
    code = subprocess.call(command, cwd=ROOT, env=env)
    if not junit.exists():
        return 0, 1, 0, [f"{preset}: ctest itself ended with {code}"]
    gtest = count_gtest(reports)
    passed = failed = skipped = 0
    bad = []
    for case in xml.parse(junit).getroot().iter("testcase"):
        name, status = case.get("name"), case.get("status")
        good, wrong = gtest.get(f"test_{name}", (0, 0))
        if status == "run":
            passed += good or 1
        elif status in ("notrun", "disabled"):
            skipped += 1
        else:
            passed += good
            failed += wrong or 1
            bad.append(f"{preset}: {name}{last_words(case)}")
    if code and not bad:
        failed, bad = failed + 1, bad + [f"{preset}: ctest ended with {code}"]
    return passed, failed, skipped, bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PRESETS), help="comma-separated presets")
    parser.add_argument("--checks", action="store_true", help="count the fast static checks too")
    args, extra = parser.parse_known_args()
    passed = failed = skipped = 0
    bad = []
    if args.checks:
        out = subprocess.run(["tools/check.sh", "--fast"], cwd=ROOT, capture_output=True, text=True)
        say(out.stdout.rstrip())
        for line in out.stdout.splitlines():
            passed += line.startswith("ok ")
            failed += line.startswith("FAILED ")
            bad += ["check: " + line[6:].strip()] if line.startswith("FAILED ") else []
    compiled_by_clang = set()
    for preset in [p for p in args.only.split(",") if p]:
        if preset not in PRESETS:
            parser.error(f"no such preset: {preset} (there are {', '.join(PRESETS)})")
        began = time.monotonic()
        say(f"== {preset}: building")
        if not (check_with_clang(compiled_by_clang) if preset == "clang" else build(preset)):
            failed += 1
            bad.append(f"{preset}: the build failed, see above")
            continue
        say(f"== {preset}: built in {time.monotonic() - began:.0f} s")
        if preset == "clang":
            passed += 1
            continue
        if preset in SANITIZER_ENV:
            compiled_by_clang |= set(compile_commands(preset))
        began = time.monotonic()
        results = run_ctest(preset, extra)
        passed, failed, skipped, bad = passed + results[0], failed + results[1], skipped + results[2], bad + results[3]
        say(f"== {preset}: tested in {time.monotonic() - began:.0f} s")
    if skipped:
        say(f"{skipped} skipped, each with its reason above")
    for name in bad:
        say(f"failed: {name}")
    say(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
