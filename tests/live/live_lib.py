"""Runs a command natively or under `enchilada run`, watches it, and says what was seen. For the live tests and benchmarks.

Standard library only. A run gets a folder of its own for TMPDIR and a mark in its environment, so that whatever it
leaves behind (files, processes) is found.
"""
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import uuid

NOBODY = 65534
MARK = "ENCHILADA_LIVE_MARK"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # the system's programs, for every user


class Failure(Exception):
    """A test's verdict, with the reason in words."""


class Skip(Exception):
    """The test cannot run here, and why."""


@dataclasses.dataclass
class Outcome:
    """What was seen of one run."""
    status: int = 0  # as a shell says it: 128 + signal when killed
    digest: str = ""
    length: int = 0
    head: bytes = b""
    stderr: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_kib: int = 0  # of the largest process (natively: what it needs)
    tree_anon_peak_kib: int = 0  # of all processes together, sampled
    processes_peak: int = 0
    stats: dict | None = None
    timed_out: bool = False
    wreck: str = ""  # for a run that hung: what its processes were doing

    def same_output(self, other):
        return (self.status, self.digest, self.length) == (other.status, other.digest, other.length)


def parse_size(text):
    return int(text[:-1]) << {"K": 10, "M": 20, "G": 30}[text[-1]]


def proc_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def read_proc(pid, name):
    try:
        return pathlib.Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def marked_processes(mark):
    """Living processes whose environment at exec held our mark."""
    needle = f"{MARK}={mark}".encode()
    return [pid for pid in proc_pids() if needle in read_proc(pid, "environ").split(b"\0") and not is_zombie(pid)]


def users_of(folder):
    """Processes that have a file of this folder open, with or without a name: its space is in use until they close it."""
    found = set()
    start = str(pathlib.Path(folder).resolve()) + "/"
    for pid in proc_pids():
        try:
            for entry in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                    if os.readlink(f"/proc/{pid}/fd/{entry}").startswith(start):
                        found.add(pid)
        except OSError:
            continue  # it has ended, or is another user's
    return found


def is_zombie(pid):
    return read_proc(pid, "stat").rpartition(b")")[2].split()[:1] == [b"Z"]


def descendants(root):
    """Processes below `root` that are alive now, itself included."""
    parents = {}
    for pid in proc_pids():
        fields = read_proc(pid, "stat").rpartition(b")")[2].split()
        if len(fields) > 1:
            parents.setdefault(int(fields[1]), []).append(pid)
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue += parents.get(pid, [])
    return found


def anonymous_kib(pid):
    for line in read_proc(pid, "status").splitlines():
        if line.startswith((b"RssAnon:",)):
            return int(line.split()[1])
    return 0


def describe_processes(root):
    """What a hung tree is doing: one line a thread."""
    lines = []
    for pid in descendants(root):
        command = read_proc(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")[:90]
        lines.append(f"  pid {pid}: {command}")
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for thread in threads[:20]:
            state = read_proc(f"{pid}/task/{thread}", "stat").rpartition(b")")[2].split()[:1]
            syscall = read_proc(f"{pid}/task/{thread}", "syscall").split()
            lines.append(f"    thread {thread}: state {b''.join(state).decode()} in "
                         f"{read_proc(f'{pid}/task/{thread}', 'wchan').decode()} system call "
                         f"{b' '.join(syscall[:3]).decode()} pc {b''.join(syscall[-1:]).decode()}")
    return "\n".join(lines)


class Sampler(threading.Thread):
    """Adds up the anonymous resident memory of a process tree, 20 times a second, and keeps the peak."""

    def __init__(self, root):
        super().__init__(daemon=True)
        self.root, self.peak_kib, self.processes = root, 0, 0
        self.done = threading.Event()

    def run(self):
        while not self.done.wait(0.05):
            tree = descendants(self.root)
            self.peak_kib = max(self.peak_kib, sum(anonymous_kib(pid) for pid in tree))
            self.processes = max(self.processes, len(tree))


def run(command, *, folder, user=None, stdin=None, env=None, timeout=120.0, sample=False, stats_file=None, keep=None):
    """Runs `command` to its end. `folder` is its TMPDIR and working folder. `keep`: a file for its standard output."""
    outcome = Outcome()
    mark = uuid.uuid4().hex
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LD_", "ENCHILADA_"))}
    environment.update({"LC_ALL": "C", "PATH": SYSTEM_PATH, "TMPDIR": str(folder), "HOME": str(folder), MARK: mark, **(env or {})})
    identity = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if user == "nobody" else {}
    hashed = hashlib.sha256()
    began = time.monotonic()
    with tempfile.TemporaryFile() as errors, open(stdin or os.devnull, "rb") as source:
        process = subprocess.Popen([str(c) for c in command], stdin=source, stdout=subprocess.PIPE, stderr=errors,
                                   cwd=folder, env=environment, start_new_session=True, **identity)
        sampler = Sampler(process.pid) if sample else None
        if sampler:
            sampler.start()

        def give_up():
            outcome.timed_out = True
            outcome.wreck = describe_processes(process.pid)
            kill_tree(process.pid, mark)

        timer = threading.Timer(timeout, give_up)
        timer.start()
        with (open(keep, "wb") if keep else open(os.devnull, "wb")) as sink:
            while chunk := process.stdout.read1(1 << 20):
                hashed.update(chunk)
                outcome.length += len(chunk)
                if len(outcome.head) < 4000:
                    outcome.head += chunk[:4000]
                if keep:
                    sink.write(chunk)
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        outcome.seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        timer.cancel()
        if sampler:
            sampler.done.set()
            sampler.join()
            outcome.tree_anon_peak_kib, outcome.processes_peak = sampler.peak_kib, sampler.processes
        errors.seek(0)
        outcome.stderr = errors.read().decode(errors="replace")
    outcome.status = process.returncode if process.returncode >= 0 else 128 - process.returncode
    outcome.digest = hashed.hexdigest()
    outcome.cpu_seconds = usage.ru_utime + usage.ru_stime
    outcome.peak_kib = usage.ru_maxrss
    if stats_file and pathlib.Path(stats_file).exists():
        try:
            outcome.stats = json.loads(pathlib.Path(stats_file).read_text())
        except ValueError as error:
            outcome.stderr += f"\n--stats wrote what is not JSON: {error}"
    if not outcome.timed_out:
        leftovers(mark)
    return outcome


def kill_tree(root, mark):
    for pid in {*descendants(root), *marked_processes(mark)}:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def leftovers(mark, patience=10.0):
    """Fails if processes of a finished run are still there after a while (an orphan may need a moment to end)."""
    until = time.monotonic() + patience
    while (alive := marked_processes(mark)) and time.monotonic() < until:
        time.sleep(0.02)
    if alive:
        names = ", ".join(read_proc(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")[:60] for pid in alive)
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
        raise Failure(f"the run left processes behind: {names}")


class Bench:
    """A place to run in: the installed command, folders that the user nobody may use, and the file leftovers seen."""

    def __init__(self, enchilada):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="enchilada-live-"))
        self.root.chmod(0o755)
        self.enchilada = pathlib.Path(enchilada).resolve() if enchilada else None
        self.count = 0
        self.library_checked = False

    def close(self):
        shutil.rmtree(self.root, ignore_errors=True)

    def folder(self, user):
        self.count += 1
        path = self.root / f"run-{self.count}"
        path.mkdir()
        path.chmod(0o755)
        if user == "nobody":
            os.chown(path, NOBODY, NOBODY)
        return path

    def reachable(self, path, user):
        """`path` itself, or a copy that nobody can execute, where the original's folders are closed to others."""
        path = pathlib.Path(path).resolve()
        if user != "nobody" or all(p.stat().st_mode & stat.S_IXOTH for p in [path, *path.parents]):
            return path
        copy = self.root / "copies" / path.parent.name / path.name
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
            for folder in (copy.parent, copy.parent.parent):
                folder.chmod(0o755)
            copy.chmod(0o755)
        return copy

    def command(self, ram, user, options=()):
        """The words that go in front of a program, and the file that the statistics will be in."""
        if not self.enchilada or not self.enchilada.exists():
            raise Failure(f"{self.enchilada} is not there: build it first")
        binary = self.reachable(self.enchilada, user)
        if binary != self.enchilada:  # the library lies beside the command's folder
            for library in (self.enchilada.parent.parent / "lib").glob("*.so*"):
                self.reachable(library, user)
        stats_file = self.folder(user) / "stats.json"
        return [binary, "run", "--ram", ram, "--stats", stats_file, *options, "--"], stats_file


def usable(enchilada):
    """Raises Skip with the doctor's words when this machine cannot run managed programs at all."""
    if not pathlib.Path(enchilada).exists():
        raise Failure(f"{enchilada} is not there: build it first")
    doctor = subprocess.run([str(enchilada), "doctor"], capture_output=True, text=True, timeout=60)
    if doctor.returncode != 0:
        raise Skip("enchilada doctor: " + " / ".join(doctor.stdout.strip().splitlines()[-3:]))


def can_be_nobody():
    return os.geteuid() == 0


def say(text):
    print(text, flush=True)
    sys.stdout.flush()
