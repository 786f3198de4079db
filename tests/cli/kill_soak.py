#!/usr/bin/env python3
"""kill -9 of random processes of a managed tree: nothing may be left charged, and nobody may hang.

A perl program keeps forking children that use memory, some of which exec another program. Its descendants are killed at
random moments; at the end it is stopped, the last ones are killed, and the summary must show an empty tree.
Arguments: the command, how many kills (25 per tree), a seed.
"""
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

ENCHILADA, KILLS, SEED = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
KILLS_PER_TREE = 25
PROGRAM = r"""
sub grow { my @a; push @a, ("x" x 100000).$_ for 1..200; my $s = 0; $s += length $_ for @a; return $s }
my $n = 0;
while (1) {
  my $pid = fork();
  if (!defined $pid) { select undef, undef, undef, 0.01; next }
  if ($pid == 0) {
    grow();
    if (rand() < 0.3) { exec "perl", "-e", q($x = "a" x 10000000; print length $x) }
    exit 0;
  }
  ++$n;
  grow() if rand() < 0.5;
  if ($n >= 3) { wait(); --$n }
}
"""


def members(session):
    """Living processes of the session, the launcher not counted. A zombie with another thread left still has its memory:
    the first thread of a killed process may be gone before the others are."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == session:
            continue
        try:
            fields = open(f"/proc/{entry}/stat").read().rsplit(")", 1)[1].split()
            state, threads = fields[0], int(fields[17])
            if os.getsid(int(entry)) == session and (state != "Z" or threads > 1):
                found.append(int(entry))
        except OSError:
            pass
    return found


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


def one_tree(generator, kills, stats):
    run = subprocess.Popen([ENCHILADA, "run", "-q", "--ram", "32M", "--stats", stats, "--", "perl", "-e", PROGRAM],
                           stdout=subprocess.DEVNULL, start_new_session=True)
    while not (children := open(f"/proc/{run.pid}/task/{run.pid}/children").read().split()):
        time.sleep(0.01)
        if run.poll() is not None:
            sys.exit(f"seed {SEED}: the tree did not start: status {run.returncode}")
    root = int(children[0])
    killed = 0
    while killed < kills:
        time.sleep(generator.random() * 0.1)
        victims = [pid for pid in members(run.pid) if pid != root]
        if run.poll() is not None:
            sys.exit(f"seed {SEED}: the tree ended by itself with status {run.returncode}")
        if victims and kill(generator.choice(victims)):
            killed += 1
    kill(root, signal.SIGSTOP)
    while victims := [pid for pid in members(run.pid) if pid != root]:
        for pid in victims:
            kill(pid)
        time.sleep(0.05)
    kill(root)
    run.wait(30)
    with open(stats) as f:
        end = json.load(f)
    left = {"frames": end["ram"]["charged_bytes"], "swap": end["swap"]["used_bytes"], "processes": end["processes"]["alive"]}
    if any(left.values()):
        sys.exit(f"seed {SEED}: left behind: {left}")
    return end["processes"]["managed"]


def main():
    generator = random.Random(SEED)
    done, managed = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        while done < KILLS:
            kills = min(KILLS_PER_TREE, KILLS - done)
            managed += one_tree(generator, kills, os.path.join(folder, "stats.json"))
            done += kills
    print(f"{done} kills among {managed} processes, nothing left behind")


if __name__ == "__main__":
    main()
