#!/usr/bin/env python3
"""Runs memprobe on many kinds of targets while things happen, and looks after every run whether
the target is what it was.

storm.py BUILD RUNS [-s SEED] [-t SECONDS] [-v] [TARGET...]

Each target is drawn from TARGETS and SERVERS, perhaps put into a memory cgroup of its own, under a seccomp
filter, or given to an ordinary user. Then some thirty commands of COMMANDS run on it, one after the
other. With each one something may happen (EVENTS): memprobe is killed by SIGKILL at a random
instant, ended by SIGINT or SIGTERM, or stopped for a while; the target is stopped and continued,
executes itself, forks; another memprobe works on it at the same time.

After each run the target must live, nobody may trace it, and none of its threads may be stopped.
After the last one, memprobe removes what its killed predecessors have left; then the target must
work on, say that nothing went wrong, and have no mapping, thread or child of memprobe's.

Prints a line for each thing that is not as it must be, and at the end

	runs=N killed=N crashed=N dead=N wrong=N eintr=N held=N left=N

crashed: memprobe ended by a signal of its own, or with an unknown exit status. eintr: waits that
ended with EINTR for no reason of their own. Exits with 1 if any but the first two is not zero.
Without -s the seed is drawn, and printed.
"""
import argparse
import glob
import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

BATCH = 30
# For what is certain to come. A hang is a fault; a busy machine is none.
PATIENCE = 120

# Before memprobe has handlers, SIGINT and SIGTERM end it themselves.
KNOWN_STATUS = {0, 1, 3, 4, 5, 6, 7, 130, 143, -signal.SIGINT, -signal.SIGTERM}

# weight, arguments; PID and the output file are filled in.
COMMANDS = [
    (4, "stack {pid}"),
    (2, "threads {pid}"),
    (1, "maps {pid} --by-type"),
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
    (1, "find {pid} needle --count"),
    (1, "strings {pid} --in heap --top 3"),
    (2, "core {pid} -o {file}"),
    (3, "allocs {pid} -d 50ms --sample 1"),
    (2, "allocs {pid} -d 50ms"),
    (1, "faults {pid} -d 50ms"),
    (1, "syscalls {pid} -d 50ms"),
    (1, "syscalls {pid} -d 50ms --engine=ptrace"),
    (1, "check {pid}"),
]

# What may happen with a run, and how often.
EVENTS = [
    (8, "nothing"), (10, "kill"), (1, "interrupt"), (1, "terminate"), (1, "pause"),
    (2, "stop target"), (1, "second memprobe"), (1, "exec target"),
]

TORTURE_KINDS = (
    "cpu red_zone vector nanosleep poll epoll epoll_timeout futex futex_timeout sigtimedwait "
    "semtimedop pipe cond accept sigsuspend queue malloc cancel create fork signal_stack "
    "small_stack").split()


# What waits in calls that the kernel itself ends with EINTR when a stopped process is continued
# (signal(7)): whoever else stops it is told nothing by that.
NEVER_CONTINUED = {"epoll", "epoll_timeout", "sigtimedwait", "semtimedop", "threads", "epoll_only",
                   "callchain"}


def torture_arguments(rng):
    # Threads that always compute slow everything else down: at most three kinds of them.
    kinds = rng.sample(TORTURE_KINDS, rng.randint(1, 8))
    # While a thread executes the program, others can make no threads and lose their children.
    alone = not {"small_stack", "create", "cancel", "fork"}.intersection(kinds)
    return kinds + (["exec=20"] if alone and rng.random() < 0.1 else [])


def no_arguments(_):
    return []


# weight, program, arguments, what it can be asked
TARGETS = {
    "torture": (10, torture_arguments),
    "torture-32": (4, torture_arguments),
    "torture-static": (3, torture_arguments),
    "malloc_load": (3, lambda rng: [str(rng.randint(1, 4)), "4096", "500"]),
    "malloc_load-32": (1, lambda rng: ["2", "4096", "500"]),
    "malloc_load-static": (1, lambda rng: ["2", "4096", "500"]),
    "malloc_load-musl": (1, lambda rng: ["2", "4096", "500"]),
    "idle": (1, lambda rng: rng.choice([[], ["nanosleep"]])),
    "threads": (2, lambda rng: [str(rng.choice([1, 12, 100]))]),
    "epoll_only": (1, no_arguments),
    "masked_wait": (1, no_arguments),
    "callchain": (1, no_arguments),
    "frames": (1, no_arguments),
    "heapshape": (1, no_arguments),
    "leaks": (1, lambda rng: ["2000"]),
    "requests": (1, lambda rng: ["2000", "100"]),
    "needles": (1, no_arguments),
    "layout": (1, no_arguments),
    "manymaps": (1, lambda rng: ["2000"]),
    "shmholes": (1, no_arguments),
    "brokenbrk": (1, lambda rng: [rng.choice(["foreign", "blocked"])]),
    "exec_fork_exit": (2, no_arguments),
}


# ---- servers, each with a client that asks and checks every answer ----

def ask_redis(connection, number):
    value = f"value-{number}".encode() * (number % 50 + 1)
    connection.sendall(b"SET key:%d %s\r\nGET key:%d\r\n" % (number % 1000, value, number % 1000))
    return b"+OK\r\n$%d\r\n%s\r\n" % (len(value), value)


def ask_memcached(connection, number):
    value = f"value-{number}".encode() * (number % 50 + 1)
    connection.sendall(b"set key%d 0 0 %d\r\n%s\r\n" % (number % 1000, len(value), value))
    return b"STORED\r\n"


def ask_echo(connection, number):
    line = b"%d " % number * (number % 50 + 1) + b"\n"
    connection.sendall(line)
    return line


ECHO = """
import socketserver, sys
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            kept.append(line)
            del kept[:-1000]
            self.wfile.write(line)
kept = []
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
Server(sys.argv[1], Echo).serve_forever()
"""

SERVERS = {
    "redis-server": (["--port", "0", "--save", "", "--unixsocket", "{socket}"], ask_redis),
    "memcached": (["-U", "0", "-s", "{socket}", "-u", "root"], ask_memcached),
    "python3": (["-c", ECHO, "{socket}"], ask_echo),
}

def say(*words):
    print(*words, flush=True)


def wait_for(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def draw(rng, rows):
    return rng.choices([row[1] for row in rows], [row[0] for row in rows])[0]


# ---- the world around a target ----

def memory_group(limit):
    """A memory cgroup, version 1 or 2; None: none can be made."""
    for base, name in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
                       ("/sys/fs/cgroup", "memory.max")):
        path = f"{base}/memprobe-storm-{os.getpid()}-{time.monotonic_ns()}"
        try:
            os.mkdir(path)
        except OSError:
            continue
        try:
            with open(f"{path}/{name}", "w", encoding="ascii") as file:
                file.write(str(limit))
            return path
        except OSError:
            os.rmdir(path)
    return None


class Target:
    """A victim with what is around it. Lines it says are read as they come."""

    def __init__(self, storm):
        rng = storm.rng
        self.name = rng.choices(list(storm.targets), [row[0] for row in storm.targets.values()])[0]
        self.arguments = storm.targets[self.name][1](rng)
        self.group, self.folder, self.lines, self.rest = None, tempfile.mkdtemp(), [], b""
        self.text = " ".join([self.name, *self.arguments])
        # What starts and ends threads, or children, or executes itself.
        changing = {"exec_fork_exit", "exec=20", "create", "cancel", "fork"}
        self.varies = bool(changing.intersection([self.name, *self.arguments]))
        self.is_continued = not NEVER_CONTINUED.intersection([self.name, *self.arguments])
        self.command = [f"{storm.build}/victims/{self.name}", *self.arguments]
        around = rng.random()
        if around < 0.1 and os.geteuid() == 0:
            self.group = memory_group(rng.choice([64, 128, 512]) << 20)
            self.text += " in a memory cgroup" if self.group else ""
        elif around < 0.2 and not re.search("musl|-32|shmholes", self.name):
            self.command = [f"{storm.build}/victims/under_filter", *self.command]
            self.text += " under a filter"
        elif around < 0.3 and os.geteuid() == 0:
            os.chmod(self.folder, 0o755)
            program = shutil.copy(self.command[0], self.folder)
            self.command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--",
                            program, *self.arguments]
            self.text += " of another user"
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, preexec_fn=self.enter)
        self.pid = self.process.pid
        os.set_blocking(self.process.stdout.fileno(), False)

    def enter(self):
        if self.group:
            with open(f"{self.group}/cgroup.procs", "w", encoding="ascii") as file:
                file.write(str(os.getpid()))

    def read(self, seconds):
        """What it has said by now, waiting so long for more."""
        output = self.process.stdout
        if not select.select([output], [], [], seconds)[0]:
            return
        got = output.read() or b""
        *lines, self.rest = (self.rest + got).split(b"\n")
        self.lines += [line.decode(errors="replace") for line in lines]

    def answer(self, begins, since):
        """The first line from number SINCE on that begins so; None: it is dead or silent."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for line in self.lines[since:]:
                if line.split(" ", 1)[0] in begins:
                    return line
            if self.process.poll() is not None:
                return None
            self.read(0.2)
        return None

    def ask(self, question, *begins):
        since = len(self.lines)
        try:
            self.process.stdin.write(f"{question}\n".encode())
            self.process.stdin.flush()
        except OSError:
            return None
        return self.answer(begins, since)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.group:
            wait_for(lambda: self.remove_group(), 10)

    def remove_group(self):
        try:
            os.rmdir(self.group)
        except OSError:
            return False
        return True


class Server:
    """A real server; its answers are checked all the time by a thread of ours."""
    varies, is_continued = False, True

    def __init__(self, name):
        arguments, self.question = SERVERS[name]
        self.name, self.text, self.arguments, self.lines = name, f"{name} under load", [], []
        self.folder, self.ending, self.answers = tempfile.mkdtemp(), False, 0
        self.socket = f"{self.folder}/socket"
        path = os.environ["PATH"] + ":/usr/sbin"
        self.process = subprocess.Popen(
            [shutil.which(name, path=path), *(word.format(socket=self.socket) if "{s" in word else word
                                              for word in arguments)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd=self.folder)
        self.pid = self.process.pid
        self.client = threading.Thread(target=self.serve)
        self.client.start()

    def serve(self):
        try:
            if not wait_for(lambda: os.path.exists(self.socket), 60):
                raise OSError("it does not listen")
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(PATIENCE)
                wait_for(lambda: connection.connect_ex(self.socket) == 0, 60)
                while not self.ending:
                    self.exchange(connection)
        except OSError as problem:
            if not self.ending:
                self.lines.append(f"WRONG answer: {problem}")

    def exchange(self, connection):
        expected, got = self.question(connection, self.answers), b""
        while len(got) < len(expected):
            part = connection.recv(65536)
            if not part:
                raise OSError("it has closed the connection")
            got += part
        if got != expected:
            raise OSError(f"{got[:80]} instead of {expected[:80]}")
        self.answers += 1
        time.sleep(0.001)

    def read(self, _):
        pass

    def answer(self, begins, _):
        """Whether it answers at all, and goes on."""
        before = self.answers
        return wait_for(lambda: self.answers > before + 3 or self.lines) and not self.lines or None

    def end(self):
        self.ending = True
        self.client.join()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


# ---- looking at a target ----

def fields_of(path, *names):
    try:
        with open(path, errors="replace") as file:
            text = file.read()
    except OSError:
        return None
    return [match.group(1) if (match := re.search(rf"^{name}:\s*(\S+)", text, re.M)) else ""
            for name in names]


def threads_of(pid):
    found = {}
    for path in glob.glob(f"/proc/{pid}/task/*/status"):
        fields = fields_of(path, "State", "TracerPid")
        if fields:
            found[int(path.split("/")[4])] = fields
    return found


def is_held(pid):
    return any(state in "Tt" or tracer != "0" for state, tracer in threads_of(pid).values()
               if state not in "ZX")


def remains_in(pid):
    """Mappings and descriptors of memprobe, and children that nobody but memprobe can have made."""
    found = []
    try:
        with open(f"/proc/{pid}/maps", errors="surrogateescape") as maps:
            found += [line.strip() for line in maps if "memfd:memprobe" in line]
    except OSError:
        pass
    for descriptor in glob.glob(f"/proc/{pid}/fd/*"):
        try:
            if "memfd:memprobe" in os.readlink(descriptor):
                found.append(descriptor)
        except OSError:
            pass
    return found


def children_of(pid):
    found = set()
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            with open(path, encoding="ascii") as file:
                found |= set(file.read().split())
        except OSError:
            pass
    return found


def state_of(pid, root, vary):
    """What state.py says that must stay, without the padding where a stub may have been left."""
    done = subprocess.run([f"{root}/tests/live/state.py", str(pid), *(["--threads-vary"] if vary else [])],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return [line for line in done.stdout.splitlines() if not line.startswith("padding")]


# ---- the storm ----

class Storm:
    COUNTS = ("runs", "killed", "crashed", "dead", "wrong", "eintr", "held", "left")

    def __init__(self, options):
        self.options = options
        self.build = os.path.abspath(options.build)
        self.root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        self.memprobe = f"{self.build}/memprobe"
        self.rng = random.Random(options.seed)
        self.targets = {name: row for name, row in TARGETS.items()
                        if os.path.exists(f"{self.build}/victims/{name}") and
                        (not options.targets or name in options.targets)}
        path = os.environ["PATH"] + ":/usr/sbin"
        self.servers = [name for name in SERVERS if shutil.which(name, path=path) and
                        (not options.targets or name in options.targets)]
        self.count = dict.fromkeys(self.COUNTS, 0)
        self.lasts = {}  # command -> seconds that it took last time
        self.history = []

    def bad(self, what, target, *words):
        self.count[what] += 1
        say(f"BAD {what}: {target.text}:", *words)
        for line in self.history[-5:]:
            say("    after", line)

    def start(self, command, target):
        words = command.format(pid=target.pid, file=f"{target.folder}/core").split()
        return subprocess.Popen([self.memprobe, *words], stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

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
        elif event == "exec target" and target.name == "exec_fork_exit":
            target.process.stdin.write(b"exec\n")
            target.process.stdin.flush()

    def run(self, target):
        command, event = draw(self.rng, COMMANDS), draw(self.rng, EVENTS)
        if event == "stop target" and not target.is_continued:
            event = "kill"
        self.history.append(f"{command} ({event})")
        if self.options.verbose:
            say(target.text, "|", self.history[-1])
        other = None
        if event == "stop target":
            os.kill(target.pid, signal.SIGSTOP)
        if event == "second memprobe":
            other = self.start(draw(self.rng, COMMANDS), target)
        since = time.monotonic()
        process = self.start(command, target)
        if event not in ("nothing", "second memprobe", "stop target"):
            self.happens(event, command, process, target)
        for each in (process, other):
            if each:
                self.reap(each, target)
        if event == "nothing":
            self.lasts[command] = time.monotonic() - since
        if event == "stop target":
            os.kill(target.pid, signal.SIGCONT)
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

    def look(self, target):
        """After a run; false: the target cannot be used any more."""
        target.read(0)
        if target.process.poll() is not None:
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

    def clean(self, target):
        """What killed ones have left goes with the next one."""
        def gone():
            for command in ("call {pid} getpid()", "allocs {pid} -d 20ms"):
                process = self.start(command, target)
                self.reap(process, target)
            return not remains_in(target.pid)
        return wait_for(gone, 30)

    def check(self, target, before, children):
        if not self.clean(target):
            self.bad("left", target, *remains_in(target.pid)[:3])
        if not self.look(target):
            return
        if target.name.startswith("torture"):
            self.check_report(target)
        elif target.name in SERVERS and not target.answer((), 0):
            self.bad("wrong", target, "it does not answer", *target.lines)
        if not target.varies:
            # A fork and its helper go after memprobe has gone.
            if not wait_for(lambda: children_of(target.pid) <= children, 20):
                self.bad("left", target, "children", children_of(target.pid) - children)
            if not wait_for(lambda: state_of(target.pid, self.root, False) == before, 20):
                now = state_of(target.pid, self.root, False)
                self.bad("left", target, [line for line in now if line not in before][:3])
        self.look(target)

    def check_report(self, target):
        # One that executes itself loses questions.
        answer = target.ask("alive", "alive", "stuck")
        while answer is None and "exec=20" in target.arguments and target.process.poll() is None:
            answer = target.ask("alive", "alive", "stuck")
        if answer != "alive":
            self.bad("wrong", target, answer or "it does not answer")
            return
        since = len(target.lines)
        if "exec=20" in target.arguments or not target.ask("report", "reported"):
            return
        for line in target.lines[since:]:
            match = re.match(r"report (\S+) wrong=(\d+) eintr=(\d+)", line)
            if match and match.group(2) != "0":
                self.bad("wrong", target, line)
            if match and match.group(3) != "0":
                self.bad("eintr", target, line)
                self.count["eintr"] += int(match.group(3)) - 1

    def draw_target(self):
        if self.servers and (not self.targets or self.rng.random() < 0.1):
            return Server(self.rng.choice(self.servers))
        return Target(self)

    def batch(self):
        target = self.draw_target()
        self.history = []
        try:
            if target.answer(("ready",), 0) is None:
                say(f"skipped: {target.text} does not start")
                return
            before = state_of(target.pid, self.root, False)
            children = children_of(target.pid)
            for _ in range(min(BATCH, self.options.runs - self.count["runs"])):
                if not self.run(target):
                    return
            self.check(target, before, children)
        finally:
            target.end()

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
    options = parser.parse_intermixed_args()
    storm = Storm(options)
    say(f"seed {options.seed}")
    end = time.monotonic() + options.seconds
    while storm.count["runs"] < options.runs and time.monotonic() < end:
        storm.batch()
    say(storm.line())
    sys.exit(any(storm.count[name] for name in storm.COUNTS[2:]))


main()
