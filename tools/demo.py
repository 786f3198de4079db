#!/usr/bin/env python3
"""The demonstration: SQLite with more than 600 MB in memory, run in 96 MB, with the same answers.

Runs the sqlite3 shell twice on tools/demo.sql: as it is, and under `enchilada run --ram 96M`. Compares what the two
print, byte for byte, then shows enchilada's own summary. Progress on a terminal, quiet in a pipe.
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
ENCHILADA = ROOT / "build/release/bin/enchilada"
SCRIPT = ROOT / "tools/demo.sql"
RAM = "96M"
SQLITE = ["sqlite3", "-batch", "-noheader", "-init", "/dev/null", ":memory:"]
STEPS = SCRIPT.read_text().count(".print ")


def run(title, command):
    """Runs `command` on the script; returns its output, exit status, seconds, peak resident MiB and standard error."""
    began = time.monotonic()
    terminal = sys.stdout.isatty()
    out = b""
    with SCRIPT.open("rb") as script, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=script, stdout=subprocess.PIPE, stderr=errors)
        for line in process.stdout:
            out += line
            if terminal:
                done = out.count(b"\n-- ") + out.startswith(b"-- ")
                step = line[3:].decode(errors="replace").strip() if line.startswith(b"-- ") else ""
                if step:
                    print(f"\r\033[K{title}: {time.monotonic() - began:4.0f} s  [{done}/{STEPS}] {step}", end="", flush=True)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        stderr = errors.read().decode(errors="replace")
    seconds = time.monotonic() - began
    print(("\r\033[K" if terminal else "") + f"{title}: {seconds:.1f} s, exit status {process.returncode}", flush=True)
    return out, process.returncode, seconds, usage.ru_maxrss // 1024, stderr


def main():
    print(f"$ sqlite3 :memory: < tools/demo.sql          (a database of over 600 MB)")
    plain, plain_status, plain_seconds, plain_peak, plain_errors = run("alone", SQLITE)
    if plain_status != 0:
        sys.exit(f"sqlite3 alone failed:\n{plain_errors}")
    print(f"       resident memory at its peak: {plain_peak} MiB\n")

    print(f"$ enchilada run --ram {RAM} -- sqlite3 :memory: < tools/demo.sql")
    ours, status, seconds, _, summary = run("under enchilada", [str(ENCHILADA), "run", "--ram", RAM, "--", *SQLITE])
    if status != 0 or ours != plain:
        sys.stderr.write(summary)
        kept = [ROOT / "build/demo-alone.txt", ROOT / "build/demo-enchilada.txt"]
        for path, text in zip(kept, (plain, ours)):
            path.write_bytes(text)
        sys.exit(f"demo: exit status {status}; the outputs {'are the same' if ours == plain else 'DIFFER'}: "
                 f"compare {kept[0]} and {kept[1]}")
    print(summary.rstrip())
    print("\nThe database's answers, from both runs:")
    for line in plain.decode().splitlines():
        if not line.startswith("-- "):
            print("  " + line)
    print(f"\nSame output, byte for byte ({len(plain)} bytes), same exit status: {plain_peak} MiB of work in {RAM} of memory,"
          f" in {seconds / plain_seconds:.1f} times the time.")


if __name__ == "__main__":
    if not ENCHILADA.exists():
        sys.exit("demo: build/release/bin/enchilada is missing: run make first")
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
