"""redis-server, managed, under redis-benchmark: BGSAVE in the middle of writing, and the dump loaded by a native redis.

The digest of all keys (DEBUG DIGEST) at the moment of BGSAVE must be what a native server finds in that dump, and once
more at the end. The server talks through a Unix socket in the test's folder; no port is opened.
"""
import pathlib
import shutil
import signal
import subprocess
import time

import live_lib
from live_lib import Failure, Skip, say


class Server:
    def __init__(self, folder, front=(), user=None, env=None):
        self.folder, self.socket = folder, folder / "s"
        config = folder / "redis.conf"
        config.write_text(f"port 0\nunixsocket {self.socket}\nunixsocketperm 777\ndir {folder}\nsave \"\"\nappendonly no\n"
                          "enable-debug-command yes\ndaemonize no\nlogfile \"\"\nlatency-tracking no\n")
        config.chmod(0o644)
        identity = {"user": live_lib.NOBODY, "group": live_lib.NOBODY, "extra_groups": []} if user == "nobody" else {}
        self.log = open(folder / "log", "wb")
        self.process = subprocess.Popen([*map(str, front), "redis-server", config], stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log, cwd=folder, start_new_session=True, **identity)
        until = time.monotonic() + 60
        while not self.alive():
            if self.process.poll() is not None or time.monotonic() > until:
                raise Failure(f"redis-server does not answer: {self.last_words()}")
            time.sleep(0.05)

    def alive(self):
        return self.socket.exists() and self.ask("PING", check=False) == "PONG"

    def ask(self, *words, check=True, timeout=300):
        done = subprocess.run(["redis-cli", "-s", str(self.socket), *words], capture_output=True, text=True, timeout=timeout)
        answer = done.stdout.strip()
        if check and (done.returncode != 0 or answer.startswith(("ERR", "Error", "LOADING")) or "Could not connect" in done.stderr):
            raise Failure(f"redis {' '.join(words)}: {answer} {done.stderr} {self.last_words()}")
        return answer

    def info(self, field):
        return next((line.partition(":")[2].strip() for line in self.ask("INFO").splitlines() if line.startswith(field + ":")), "")

    def benchmark(self, *words):
        """Starts redis-benchmark; it runs natively."""
        return subprocess.Popen(["redis-benchmark", "-q", "-s", str(self.socket), *map(str, words)],
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def last_words(self):
        self.log.flush()
        return "\n" + (self.folder / "log").read_text(errors="replace")[-1500:]

    def shut_down(self):
        self.ask("SHUTDOWN", "NOSAVE", check=False)
        try:
            return self.process.wait(timeout=120)
        finally:
            self.log.close()

    def end(self):
        """However things went: nothing of it stays."""
        if self.process.poll() is None:
            live_lib.kill_tree(self.process.pid, "none")
            self.process.wait()
        self.log.close()


def finish(process, what):
    error = process.communicate(timeout=900)[1]
    if process.returncode != 0:
        raise Failure(f"{what} ended with {process.returncode}: {error.decode(errors='replace')[-500:]}")


def native_digest(bench, dump):
    folder = bench.folder(None)
    shutil.copy(dump, folder / "dump.rdb")
    server = Server(folder)
    try:
        return server.ask("DEBUG", "DIGEST"), server.ask("DBSIZE")
    finally:
        server.shut_down()
        server.end()


def work(server, folder, keys, bench):
    """Fills, saves in the middle of more writing, and returns when both dumps were proven right."""
    server.ask("DEBUG", "POPULATE", str(keys // 2), "still", "800")
    finish(server.benchmark("-t", "set,lpush", "-r", keys // 2, "-n", keys // 2, "-d", "800", "-P", "8"), "redis-benchmark")
    digest, size = server.ask("DEBUG", "DIGEST"), server.ask("DBSIZE")
    used = int(server.info("used_memory_peak"))
    server.ask("BGSAVE")  # the fork is made before the answer comes: this state, whatever is written from now on
    during = server.benchmark("-t", "set,get,incr,lpop", "-r", keys, "-n", keys // 4, "-d", "700", "-P", "8")
    until = time.monotonic() + 600
    while server.info("rdb_bgsave_in_progress") != "0":
        if time.monotonic() > until:
            raise Failure("BGSAVE does not end:\n" + live_lib.describe_processes(server.process.pid))
        time.sleep(0.1)
    if server.info("rdb_last_bgsave_status") != "ok":
        raise Failure(f"BGSAVE failed: {server.last_words()}")
    saved = native_digest(bench, folder / "dump.rdb")
    if saved != (digest, size):
        raise Failure(f"the dump of BGSAVE has digest {saved}, the server had {(digest, size)}")
    finish(during, "redis-benchmark during BGSAVE")
    digest, size = server.ask("DEBUG", "DIGEST"), server.ask("DBSIZE")
    server.ask("SAVE")
    saved = native_digest(bench, folder / "dump.rdb")
    if saved != (digest, size):
        raise Failure(f"the dump of SAVE has digest {saved}, the server had {(digest, size)}")
    return used


def run_redis(args, bench, name):
    import run_live
    for command in ("redis-server", "redis-benchmark", "redis-cli"):
        if not shutil.which(command):
            raise Skip(f"{name}: not installed: {command} (make deps)")
    keys, ram = (600_000, "128M") if args.full else (30_000, "8M")
    ways = [("natively", None, None)] if args.native_only else [
        (how, user, options) for how, user, options in run_live.variants(args, brief=not args.full)]
    for how, user, options in ways:
        began = time.monotonic()
        folder = bench.folder(user)
        front, stats_file = bench.command(ram, user, options) if options is not None else ([], None)
        server = Server(folder, front, user)
        try:
            used = work(server, folder, keys, bench)
            status = server.shut_down()
            words = server_words(folder)
        except Failure as failure:
            raise Failure(f"{how}: {failure}") from None
        finally:
            server.end()
        run_live.require(status == 0, f"{how}: redis-server ended with {status}: {words}")
        ratio = used / live_lib.parse_size(ram)
        run_live.require(ratio >= 4, f"redis used {used >> 20} MiB, only {ratio:.1f} times --ram {ram}")
        if stats_file:
            import json
            run_live.check_bounded(json.loads(pathlib.Path(stats_file).read_text()), ram)
        run_live.verdict(f"redis, {how}", began, f"{used >> 20} MiB = {ratio:.1f} x {ram}")


def server_words(folder):
    return (folder / "log").read_text(errors="replace")[-1500:]
