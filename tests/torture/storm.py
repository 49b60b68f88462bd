#!/usr/bin/env python3
"""Runs memprobe on many kinds of targets while things happen, and looks after every run whether
the target is what it was.

storm.py BUILD RUNS [-s SEED] [-t SECONDS] [-v] [-k] [TARGET...]

Each target is drawn from TARGETS (targets.py) and SERVERS (servers.py), perhaps put into a cgroup of
its own, with little memory or few processes, under a seccomp filter, or given to an ordinary user.
Then some thirty commands of COMMANDS run on it, one after the other. With each one something may
happen (EVENTS): memprobe is killed by SIGKILL at a random instant, ended by SIGINT or SIGTERM, or
stopped for a while; the target is stopped and continued, its cgroup's memory is cut to what it has;
another memprobe works on it at the same time. With any of these the target may be told to do
something: it forks, once or in a storm, executes itself, makes threads, goes under a filter.

After each run the target must live, nobody may trace it, and none of its threads may be stopped.
After the last one, memprobe removes what its killed predecessors have left, by one more recording;
then the target must work on, say that nothing went wrong, and have no mapping, thread or child of
memprobe's.

Prints a line for each thing that is not as it must be, and at the end

	runs=N killed=N crashed=N dead=N wrong=N eintr=N held=N left=N

crashed: memprobe ended by a signal of its own, or with an unknown exit status. eintr: waits that
ended with EINTR for no reason of their own. Exits with 1 if any but the first two is not zero.
Without -s the seed is drawn, and printed. -k: memprobe is always killed. -v: the sums after each
target.
"""
import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import shutil
import time

sys.dont_write_bytecode = True

from look import (PATIENCE, children_of, is_held, remains_in, state_of, text_of,  # noqa: E402
                  threads_of, wait_for)
from servers import SERVERS, Database  # noqa: E402
from targets import TARGETS, Target  # noqa: E402

BATCH = 30
# Commands that a target is given: some of them make what stays.
SAID_MAX = 20

# Before memprobe has handlers, SIGINT and SIGTERM end it themselves.
KNOWN_STATUS = {0, 1, 3, 4, 5, 6, 7, 130, 143, -signal.SIGINT, -signal.SIGTERM}

# weight, arguments; PID, the output file and an address of the heap are filled in.
COMMANDS = [
    (4, "stack {pid}"),
    (2, "threads {pid}"),
    (1, "maps {pid} --by-type"),
    (1, "maps {pid} --every 20ms --count 3"),
    (4, "mallinfo {pid}"),
    (4, "mallinfo {pid} --method=call"),
    (1, "mallinfo {pid} --stats"),
    (4, "trim {pid}"),
    (2, "trim {pid} --dry-run"),
    (4, "call {pid} getpid()"),
    (4, "heap {pid} --top 3"),
    (1, "heap {pid} --by content --top 3"),
    (4, "leaks {pid} --top 3"),
    (1, "leaks {pid} --no-fork --top 3"),
    (1, "leaks {pid} --retain {heap}"),
    (1, "find {pid} needle --count"),
    (2, "find {pid} needle --in arena"),
    (1, "strings {pid} --in heap --top 3"),
    (1, "dump {pid} heap -o {file}"),
    (1, "dump {pid} stack -x"),
    (2, "core {pid} -o {file}"),
    (3, "allocs {pid} -d 50ms --sample 1"),
    (2, "allocs {pid} -d 50ms"),
    (1, "allocs {pid} -d 50ms --all"),
    (1, "allocs {pid} -d 50ms --reachable"),
    (2, "allocs {pid} -d 50ms --engine=uprobe"),
    (1, "faults {pid} -d 50ms"),
    (1, "syscalls {pid} -d 50ms"),
    (1, "syscalls {pid} -d 50ms --engine=ptrace"),
    (1, "check {pid}"),
]

# For what a stop would cut short: these must do without.
CUTS_NOTHING = ("threads", "maps", "mallinfo", "trim", "call", "heap", "find", "strings", "dump",
                "allocs {pid} -d 50ms --engine=uprobe", "faults", "check")

# What may happen with a run, and how often.
EVENTS = [
    (7, "nothing"), (16, "kill"), (1, "interrupt"), (1, "terminate"), (1, "pause"),
    (2, "stop target"), (2, "second memprobe"), (2, "squeeze"),
]


def say(*words):
    print(*words, flush=True)


def draw(rng, rows):
    return rng.choices([row[1] for row in rows], [row[0] for row in rows])[0]


class Storm:
    COUNTS = ("runs", "killed", "crashed", "dead", "wrong", "eintr", "held", "left")

    def __init__(self, options):
        self.options = options
        self.build = os.path.abspath(options.build)
        self.memprobe = f"{self.build}/memprobe"
        self.rng = random.Random(options.seed)
        chosen = options.targets
        self.targets = {name: row for name, row in TARGETS.items()
                        if os.path.exists(f"{self.build}/victims/{name.split()[0]}") and
                        (not chosen or name in chosen)}
        self.servers = [name for name, server in SERVERS.items()
                        if server.is_installed() and (not chosen or name in chosen)]
        self.folders = {}  # of databases
        self.count = dict.fromkeys(self.COUNTS, 0)
        self.lasts = {}  # command -> seconds that it took last time
        self.history, self.said = [], 0

    def bad(self, what, target, *words):
        self.count[what] += 1
        say(f"BAD {what}: {target.text}:", *words)
        for line in self.history[-8:]:
            say("    after", line)

    def start(self, command, target):
        words = command.format(pid=target.pid, file=f"{target.folder}/core",
                               heap=self.heap_address(command, target)).split()
        return subprocess.Popen([self.memprobe, *words], stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def heap_address(self, command, target):
        if "{heap}" not in command:
            return None
        for line in text_of(f"/proc/{target.pid}/maps").splitlines():
            if line.endswith("[heap]"):
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                return hex(self.rng.randrange(start, end, 16))
        return "0x1000"

    # ---- what happens ----

    def happens(self, event, command, process, target):
        """Does what is to happen while memprobe runs."""
        time.sleep(self.rng.uniform(0, 1.3 * self.lasts.get(command, 0.1)))
        if event == "kill":
            process.kill()
        elif event == "interrupt":
            process.send_signal(signal.SIGINT)
        elif event == "terminate":
            process.send_signal(signal.SIGTERM)
        elif event == "pause":
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.05)
            process.send_signal(signal.SIGCONT)

    def is_told(self, target):
        """Something to do, once or as a storm; what comes of it comes while memprobe runs."""
        says = target.kind.says if target.kind else ()
        if not says or self.said >= SAID_MAX or self.rng.random() > 0.25:
            return ""
        line, times = self.rng.choice(says), self.rng.choice([1, 1, 1, 8])
        for _ in range(min(times, SAID_MAX - self.said)):
            self.said += 1
            target.say(line)
        return f", {line} x{times}"

    def draw_command(self, target):
        command = draw(self.rng, COMMANDS)
        while target.kind and not target.kind.cut and not command.startswith(CUTS_NOTHING):
            command = draw(self.rng, COMMANDS)
        return command

    def draw_event(self, target):
        event = "kill" if self.options.kill else draw(self.rng, EVENTS)
        if event == "stop target" and not target.is_continued:
            return "kill"
        if event == "squeeze" and not target.squeeze(self.rng.choice([1, 2, 8, 32]) << 19):
            return "kill"
        return event

    def run(self, target):
        command, event = self.draw_command(target), self.draw_event(target)
        self.history.append(f"{command} ({event})")
        other = None
        if event == "stop target":
            os.kill(target.pid, signal.SIGSTOP)
        if event == "second memprobe":
            other = self.start(self.draw_command(target), target)
        since = time.monotonic()
        process = self.start(command, target)
        self.history[-1] += self.is_told(target)
        if event in ("kill", "interrupt", "terminate", "pause"):
            self.happens(event, command, process, target)
        for each in (process, other):
            if each:
                self.reap(each, target)
        if event == "nothing":
            self.lasts[command] = time.monotonic() - since
        elif event == "stop target":
            os.kill(target.pid, signal.SIGCONT)
        elif event == "squeeze":
            target.release()
        self.count["runs"] += 2 if other else 1
        self.count["killed"] += process.returncode == -signal.SIGKILL
        return self.look(target)

    def reap(self, process, target):
        try:
            said = process.communicate(timeout=PATIENCE)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            said = process.communicate()[1]
            self.bad("crashed", target, "memprobe hangs", said[-300:])
        if process.returncode not in KNOWN_STATUS and process.returncode != -signal.SIGKILL:
            self.bad("crashed", target, f"exit status {process.returncode}", said[-300:])
        self.history[-1] += f" -> {process.returncode}"
        return said

    # ---- what must be ----

    def look(self, target):
        """After a run; false: the target cannot be used any more."""
        target.read(0)
        if not target.lives():
            self.bad("dead", target, f"status {target.process.returncode}", target.lines[-3:])
            return False
        if not wait_for(lambda: not is_held(target.pid), 60):
            self.bad("held", target, threads_of(target.pid))
            return False
        wrong = [line for line in target.lines if line.startswith("WRONG")]
        if wrong:
            self.bad("wrong", target, wrong[0])
            return False
        target.lines = target.lines[-1:]
        return True

    def clean(self, target, before):
        """What killed ones have left goes with the next recording that can be done."""
        for command in ("call {pid} getpid()", "allocs {pid} -d 20ms"):
            self.history.append(command)
            said = self.reap(self.start(command, target), target)
            self.history[-1] += f" {said.decode(errors='replace').strip()[-300:]}"
        return not set(remains_in(target.pid)) - before

    def check(self, target, before, children, remains):
        if not wait_for(lambda: self.clean(target, remains), 60, 0.5):
            self.bad("left", target, *(set(remains_in(target.pid)) - remains))
        if not self.look(target):
            return
        # It can answer only once it goes on.
        if not target.varies:
            # A fork and its helper go after memprobe has gone.
            if not wait_for(lambda: children_of(target.pid) <= children, 20):
                self.bad("left", target, "children", children_of(target.pid) - children)
            vary = target.threads_vary
            if not wait_for(lambda: state_of(target.pid, vary) == before, 20, 0.1):
                now = state_of(target.pid, vary)
                self.bad("left", target, [line for line in now if line not in before][:3])
        problem = target.works()
        if problem and target.lives():
            self.bad("wrong", target, problem, *target.lines[-3:])
            return
        for kind, wrong, eintr in target.report():
            if wrong:
                self.bad("wrong", target, kind, wrong)
            if eintr:
                self.bad("eintr", target, kind, eintr)
                self.count["eintr"] += eintr - 1
        self.look(target)

    def draw_target(self):
        if not self.servers or self.targets and self.rng.random() > 0.1:
            return Target(self)
        server = SERVERS[self.rng.choice(self.servers)]
        if not issubclass(server, Database):
            return server()
        if server not in self.folders:
            self.folders[server] = tempfile.mkdtemp()
        return server(self.folders[server])

    def batch(self):
        target = self.draw_target()
        self.history, self.said = [], 0
        try:
            if not target.begin():
                say(f"skipped: {target.text} does not start", *target.lines[-3:])
                return
            before, children = state_of(target.pid, target.threads_vary), target.own_children()
            remains = set(remains_in(target.pid))
            for _ in range(min(BATCH, self.options.runs - self.count["runs"])):
                if not self.run(target):
                    return
            self.check(target, before, children, remains)
        finally:
            target.end()

    def end(self):
        for folder in self.folders.values():
            shutil.rmtree(folder, ignore_errors=True)

    def line(self):
        return " ".join(f"{name}={self.count[name]}" for name in self.COUNTS)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("build")
    parser.add_argument("runs", type=int)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("-s", dest="seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("-t", dest="seconds", type=float, default=1e9)
    parser.add_argument("-v", dest="verbose", action="store_true")
    parser.add_argument("-k", dest="kill", action="store_true")
    options = parser.parse_intermixed_args()
    storm = Storm(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    say(f"seed {options.seed}")
    end = time.monotonic() + options.seconds
    try:
        while storm.count["runs"] < options.runs and time.monotonic() < end:
            storm.batch()
            if options.verbose:
                say(storm.line())
    finally:
        storm.end()
        say(storm.line())
    sys.exit(any(storm.count[name] for name in storm.COUNTS[2:]))


main()
