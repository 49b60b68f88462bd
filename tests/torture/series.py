#!/usr/bin/env python3
"""Records targets under load very often, or is killed while it does, and looks after every time
whether the target is what it was.

series.py BUILD cycles|kills COUNT [TARGET...]	  glibc static musl jemalloc tcmalloc mimalloc mariadbd

cycles	memprobe allocs, COUNT times each. The target must work on, nothing of memprobe may be mapped
	or open in it, and every byte of its mapped code must be the same.
kills	it is killed by SIGKILL, in turns while it attaches, records and detaches, at an instant drawn
	from that phase. The target must work on, untraced, and its hooks must be idle within 2 s: they
	are looked at every 2 ms. Then the next recording must leave it as it was. The target rests
	most of the time: one that finds no CPU cannot look at its lease.

SEED=N in the environment for the same instants again. Prints a line for each target; exits with 1
if anything was not as it must be.
"""
import glob
import hashlib
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

IDLE_MAX = 2.0


class Wrong(Exception):
    pass


def quietly(*command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=120, **options)


# ---- targets ----

class Victim:
    """malloc_load: checks its blocks, counts its rounds."""

    def __init__(self, build, program, library=None, pause=0):
        environment = dict(os.environ)
        if library:
            environment["LD_PRELOAD"] = library
        self.process = subprocess.Popen([f"{build}/victims/{program}", "4", "4096", str(pause)],
                                        env=environment, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, bufsize=1)
        self.pid = self.process.pid
        self.answer("ready")

    def answer(self, key):
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise Wrong("it is dead")
            if line.startswith("WRONG"):
                raise Wrong(line.strip())
            if line.split()[0] == key:
                return line.split()[1:]

    def rounds(self):
        self.process.stdin.write("ping\n")
        return int(self.answer("pong")[0])

    def works(self):
        before, end = self.rounds(), time.monotonic() + 30
        while self.rounds() < before + 8:
            if time.monotonic() > end:
                raise Wrong("it does not go on")
            time.sleep(0.005)

    def end(self):
        self.process.kill()
        self.process.wait()


class Mariadb:
    """mariadbd with three clients."""

    def __init__(self, _):
        self.folder = tempfile.mkdtemp()
        self.socket = f"{self.folder}/socket"
        path = os.environ["PATH"] + ":/usr/sbin"
        data = f"{self.folder}/data"
        user = ["--user=root"] if os.geteuid() == 0 else []
        quietly("mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db",
                "--auth-root-authentication-method=normal", *user, check=True)
        self.process = subprocess.Popen(
            [shutil.which("mariadbd", path=path), "--no-defaults", f"--datadir={data}",
             f"--socket={self.socket}", "--skip-networking", "--innodb-buffer-pool-size=32M",
             *user], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.pid = self.process.pid
        end = time.monotonic() + 60
        while self.sql("select 1") != "1":
            if time.monotonic() > end:
                raise Wrong("mariadbd does not start")
            time.sleep(0.2)
        self.sql("create database test; create table test.canary (n int); "
                 "insert into test.canary values (4711)")
        self.load = None
        self.keep_load()

    def sql(self, query):
        return quietly("mariadb", "--no-defaults", "-u", "root", "-S", self.socket, "-N", "-B",
                       "-e", query).stdout.strip()

    def keep_load(self):
        if self.load and self.load.poll() is None:
            return
        if self.load:
            raise Wrong(f"its clients failed: {self.load.stdout.read()[-300:]}")
        self.load = subprocess.Popen(
            ["mariadb-slap", "--no-defaults", "-u", "root", "-S", self.socket, "--concurrency=3",
             "--auto-generate-sql", "--number-of-queries=3000", "--iterations=1000000"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def works(self):
        if self.process.poll() is not None:
            raise Wrong("it is dead")
        if self.sql("select n from test.canary") != "4711":
            raise Wrong("it does not answer")
        self.keep_load()

    def end(self):
        self.load.kill()
        self.load.wait()
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder)


def preloaded(name):
    def start(build, pause):
        found = [path for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib")
                 for path in glob.glob(f"{folder}/{name}")]
        return Victim(build, "malloc_load", found[0], pause) if found else None
    return start


TARGETS = {
    "glibc": lambda build, pause: Victim(build, "malloc_load", None, pause),
    "static": lambda build, pause: Victim(build, "malloc_load-static", None, pause),
    "musl": lambda build, pause: Victim(build, "malloc_load-musl", None, pause),
    "jemalloc": preloaded("libjemalloc.so.2"),
    "tcmalloc": preloaded("libtcmalloc.so.4"),
    "mimalloc": preloaded("libmimalloc.so.2"),
    "mariadbd": lambda build, _: Mariadb(build) if shutil.which("mariadb-slap") else None,
}


# ---- what must stay as it is ----

def code_of(pid):
    """Digests of all bytes of its file mappings with code, in memory, by address."""
    found = {}
    with open(f"/proc/{pid}/maps", errors="surrogateescape") as maps, \
            open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            span, perms, _, _, inode, *path = line.split(None, 5)
            if "x" not in perms or "w" in perms or inode == "0":
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            memory.seek(start)
            digest = hashlib.blake2b(memory.read(end - start)).digest()
            found[span, path[0].strip()] = digest
    return found


def remains_in(pid):
    """The agent, its hooks and tables, and descriptors of them."""
    found = []
    with open(f"/proc/{pid}/maps", errors="surrogateescape") as maps:
        for line in maps:
            words = line.split(None, 5)
            if "memfd:memprobe" in line or (words[1] == "r-xp" and len(words) == 5):
                found.append(line.strip())
    for descriptor in glob.glob(f"/proc/{pid}/fd/*"):
        try:
            if "memfd:memprobe" in os.readlink(descriptor):
                found.append(descriptor)
        except OSError:
            pass
    return found


def is_held(pid):
    for status in glob.glob(f"/proc/{pid}/task/*/status"):
        try:
            with open(status, errors="replace") as file:
                text = file.read()
        except OSError:
            continue
        if re.search(r"^State:\s*[Tt]", text, re.M) or not re.search(r"^TracerPid:\s*0$", text, re.M):
            return True
    return False


class Series:
    def __init__(self, build, name, target):
        self.memprobe, self.trace_loop = f"{build}/memprobe", f"{build}/tests/torture/trace_loop"
        self.name, self.target = name, target
        target.works()
        self.code = code_of(target.pid)
        self.before = set(remains_in(target.pid))
        self.bad, self.held, self.figures = [], [], {}

    def command(self, *options):
        return [self.memprobe, "allocs", str(self.target.pid), "--engine=agent", "--json", "-v",
                *options]

    def count(self, what):
        self.figures[what] = self.figures.get(what, 0) + 1

    def record(self, *options):
        done = subprocess.run(self.command(*options), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=120)
        if done.returncode:
            raise Wrong(f"exit {done.returncode}: {done.stderr[-500:]}")
        found = json.loads(done.stdout)
        self.held.append(found["stopped_us"] / 1000)
        if found["lost"]:
            self.count("with_losses")

    def check(self):
        self.target.works()
        left = [line for line in remains_in(self.target.pid) if line not in self.before]
        if left:
            self.count("left")
            raise Wrong(f"left: {left}")
        if code_of(self.target.pid) != self.code:
            self.count("code_changed")
            raise Wrong("its code has changed")

    def attempt(self, function, i):
        try:
            function(i)
            self.count("good")
        except (Wrong, subprocess.TimeoutExpired) as problem:
            print(f"BAD {self.name} {i}: {problem}", flush=True)
            self.bad.append(str(problem))
            if self.target.process.poll() is not None:
                self.count("crashes")
                return False
        return True

    def cycle(self, i):
        self.record("-d", "40ms", *(["--sample", "1"] if i % 2 else []))
        self.check()

    def say(self, kind, count):
        found = " ".join(f"{key}={value}" for key, value in sorted(self.figures.items()))
        held = sorted(self.held)
        print(f"{kind} {self.name} of={count} {found} bad={len(self.bad)} stopped_ms: "
              f"median={statistics.median(held):.1f} p95={held[len(held) * 95 // 100]:.1f} "
              f"max={held[-1]:.1f}", flush=True)


# ---- kills ----

class Kills(Series):
    """How long the phases last is learnt as it goes."""
    RECORD = 0.15

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.phases = {"attach": [], "detach": []}
        self.idle = []
        for _ in range(5):
            self.learn()

    def start(self):
        return subprocess.Popen(self.command("--sample", "1"), stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)

    def begun(self, process):
        said = ""
        for line in process.stderr:
            if "recording begins" in line:
                return
            said += line
        process.wait()
        raise Wrong(f"it does not record: exit {process.returncode}: {said[-500:]}")

    def learn(self):
        since = time.monotonic()
        process = self.start()
        self.begun(process)
        self.phases["attach"].append(time.monotonic() - since)
        since = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate()
        self.phases["detach"].append(time.monotonic() - since)

    def kill_in(self, phase):
        process = self.start()
        if phase == "attach":
            time.sleep(random.uniform(0, statistics.median(self.phases["attach"])))
        else:
            self.begun(process)
            if phase == "record":
                time.sleep(random.uniform(0, self.RECORD))
            else:
                time.sleep(0.02)
                process.send_signal(signal.SIGINT)
                time.sleep(random.uniform(0, statistics.median(self.phases["detach"])))
        process.kill()
        at = time.monotonic()
        process.communicate()
        self.count("ended" if process.returncode != -signal.SIGKILL else f"killed_in_{phase}")
        return at

    def await_idle(self, since):
        done = quietly(self.trace_loop, str(self.target.pid), "idle").stdout
        words = dict(word.split("=") for word in done.split() if "=" in word)
        if "idle" not in words:
            raise Wrong(f"the hooks are not idle: {done}")
        active, idle = (int(words[key]) / 1e6 - since for key in ("active", "idle"))
        if words["agents"] != "0":
            self.count("agent_stayed")
        if active > 0:
            self.idle.append(idle)
            self.count("active_at_first")
        if active > IDLE_MAX:
            self.count("idle_late")
            raise Wrong(f"the hooks were active for {active:.3f} s")

    def kill(self, i):
        at = self.kill_in(("attach", "record", "detach")[i % 3])
        while is_held(self.target.pid):
            if time.monotonic() > at + 5:
                raise Wrong("it is held")
            time.sleep(0.002)
        self.await_idle(at)
        self.target.works()
        self.record("-d", "20ms", "--sample", "1")
        self.check()

    def say(self, kind, count):
        if self.idle:
            print(f"     {self.name}: idle after s: median={statistics.median(self.idle):.2f} "
                  f"max={max(self.idle):.2f} of {len(self.idle)}")
        super().say(kind, count)


def main():
    if len(sys.argv) < 4 or sys.argv[2] not in ("cycles", "kills"):
        sys.exit(__doc__)
    build, kind, count = os.path.abspath(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    bad = 0
    random.seed(os.environ.get("SEED"))
    for name in sys.argv[4:] or TARGETS:
        target = TARGETS[name](build, 0 if kind == "cycles" else 2000)
        if not target:
            print(f"{kind} {name}: not installed")
            continue
        try:
            series = (Series if kind == "cycles" else Kills)(build, name, target)
            for i in range(count):
                if not series.attempt(series.cycle if kind == "cycles" else series.kill, i):
                    break
            series.say(kind, count)
            bad += len(series.bad)
        finally:
            target.end()
    sys.exit(bad > 0)


main()
