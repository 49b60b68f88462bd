"""What storm.py draws its targets from: the victims of tests/victims, and of tests/torture."""
import os
import re
import select
import shutil
import subprocess
import tempfile
import time

from look import PATIENCE, children_of, lives, text_of, threads_of, wait_for

TORTURE_KINDS = (
    "cpu red_zone vector nanosleep poll epoll epoll_timeout futex futex_timeout sigtimedwait "
    "semtimedop pipe cond accept sigsuspend queue malloc cancel create fork signal_stack "
    "small_stack").split()


def torture_arguments(rng):
    # Threads that always compute slow everything else down: at most three kinds of them.
    kinds = rng.sample(TORTURE_KINDS, rng.randint(1, 8))
    # While a thread executes the program, others can make no threads and lose their children.
    alone = not {"small_stack", "create", "cancel", "fork", "epoll", "futex", "sigsuspend",
                 "queue"}.intersection(kinds)
    return kinds + (["exec=20"] if alone and rng.random() < 0.1 else [])


def one_of(*lines):
    return lambda rng: rng.choice(lines).split()


MODELS_32 = ("openssh chromium nsjail nsjail-errno mixed late restart-kill restart-thread "
             "restart-errno restart-trap restart-trace restart-notify restart-log").split()
FILTERS = "strict mmap sigprocmask madvise brk container two memfd".split()
STACKS = ("guard bare pool fenced guarded heap static comap coheap costatic alternate "
          "ended").split()


class Kind:
    """What a victim is asked, and what it can bear."""

    def __init__(self, arguments=one_of(""), works="pong", says=(), ends=(), waits=False,
                 cut=True, growing=False):
        self.arguments = arguments
        # pong: it answers; rounds: and goes on; alive: as tests/torture/target.c; None: it does
        # not answer.
        self.works = works
        self.says = says  # commands that it may be given at any time
        self.ends = ends  # (command, answer), at the end
        # Waits in calls that the kernel itself ends with EINTR when a stopped process is continued
        # (signal(7)): whoever else stops it is told nothing by that.
        self.waits = waits
        self.cut = cut  # stops may end its transfers: otherwise only what needs none is run
        self.growing = growing  # takes memory, threads or processes by itself


NEVER_CONTINUED = {"epoll", "epoll_timeout", "sigtimedwait", "semtimedop"}

TORTURE = Kind(torture_arguments, works="alive", growing=True)
LOAD = Kind(one_of("1 4096 500", "2 4096 500", "4 4096 500"), works="rounds", growing=True)
TRANSFERS = Kind(ends=[("finish", "finished")], waits=True, cut=False)
EXECUTES = Kind(one_of("", "", "churn"), growing=True,
                says="exec fork fork zombie thread thread thread-exit".split())
GO = {"says": ["go"], "growing": True}

# weight, kind. A program may be a variant: -32, -static, -musl; behind it may be a first argument.
TARGETS = {
    "torture": (10, TORTURE), "torture-32": (4, TORTURE), "torture-static": (3, TORTURE),
    "sandboxed": (6, Kind(one_of(*MODELS_32, "docker", "systemd", "systemd-errno"), works="rounds",
                          says=["each"], waits=True)),
    "sandboxed-32": (2, Kind(one_of(*MODELS_32), works="rounds", says=["each"], waits=True)),
    "transfers": (3, TRANSFERS), "transfers-32": (1, TRANSFERS),
    "filtered": (2, Kind(one_of(*FILTERS))), "filtered-32": (1, Kind(one_of(*FILTERS))),
    "malloc_load": (2, LOAD), "malloc_load-32": (1, LOAD), "malloc_load-static": (1, LOAD),
    "malloc_load-musl": (1, LOAD),
    "idle": (2, Kind(one_of("", "nanosleep"), works=None)),
    "threads": (2, Kind(one_of("1", "12", "12", "100"), waits=True)),
    "threads-32": (1, Kind(one_of("12"), waits=True)),
    "epoll_only": (1, Kind(works=None, waits=True)),
    "epoll_only-32": (1, Kind(works=None, waits=True)),
    "masked_wait": (1, Kind(waits=True)), "masked_wait-32": (1, Kind(waits=True)),
    "callchain": (2, Kind(waits=True)), "callchain-static": (1, Kind(waits=True)),
    "exec_fork_exit": (3, EXECUTES), "exec_fork_exit-32": (1, EXECUTES),
    "prefork": (2, Kind(says="child orphan nobody strict".split(), ends=[("work", "working")],
                        growing=True)),
    "alloc_perils": (2, Kind(one_of("sharer", "tsc", "dispatch", "locked", "closer {folder}/file",
                                    "filter 186 14 131 96 228"), waits=True, growing=True)),
    "alloc_perils later": (2, Kind(says="fork lock".split(), waits=True,
                                   growing=True)),
    "alloc_odd": (2, Kind(one_of("threads 100", "coroutines", "remapped"), **GO)),
    "alloc_truth": (2, Kind(one_of("2 512 2000 500"), says=["go", "stop"], growing=True)),
    "alloc_truth-musl": (1, Kind(one_of("2 512 2000 500"), says=["go", "stop"], growing=True)),
    "allocshape": (1, Kind(one_of("20"), **GO)), "allocshape-static": (1, Kind(one_of("20"), **GO)),
    "allocnew": (1, Kind(**GO)), "twolibcs": (1, Kind()), "manyblocks": (1, Kind(**GO)),
    "poolwork": (1, Kind(**GO)), "mapcalls": (1, Kind(**GO)), "same_tid": (1, Kind(**GO)),
    "heapodd": (2, Kind(lambda rng: rng.sample(["blocked", "fill", "split", "aligned", "merged",
                                                "wiped"], 3))),
    "threadstacks": (2, Kind(one_of(*STACKS))), "altstack": (1, Kind(growing=True)),
    "odd_frames": (1, Kind()), "odd_frames_pie": (1, Kind()), "frames": (1, Kind()),
    "frames-musl": (1, Kind()), "templates": (1, Kind()), "jitted": (1, Kind()),
    "stale": (1, Kind(works=None)), "stackdepth": (1, Kind(one_of("500"))),
    "in_vfork": (1, Kind(one_of("", "thread"), ends=[("go", "vfork")])),
    "heapshape": (1, Kind()), "asked": (1, Kind()), "leakkinds": (1, Kind()), "libcs": (1, Kind()),
    "leaks": (1, Kind(one_of("2000"))), "leaks-32": (1, Kind(one_of("2000"))),
    "requests": (1, Kind(one_of("2000 100"))), "needles": (1, Kind()), "layout": (1, Kind()),
    "manymaps": (1, Kind(one_of("2000"))), "shmholes": (1, Kind()), "nomalloc": (1, Kind(works=None)),
    "reserved": (1, Kind()), "hugepages": (1, Kind(one_of("private 2", "shared 2"))),
    "forktold": (1, Kind()), "dirtying": (1, Kind(one_of("8"), works="rounds")),
    "sharing": (1, Kind(one_of("{folder}"), says=["children"])),
    "brokenbrk": (1, Kind(one_of("foreign", "blocked"))), "paths": (1, Kind(one_of("{folder}"))),
}


# ---- the world around a target ----

def make_group(controller, limit_names, limit):
    """A control group, version 1 or 2, and the file of its limit; None: none can be made."""
    for base, name in ((f"/sys/fs/cgroup/{controller}", limit_names[0]),
                       ("/sys/fs/cgroup", limit_names[1])):
        path = f"{base}/memprobe-storm-{os.getpid()}-{time.monotonic_ns()}"
        try:
            os.mkdir(path)
        except OSError:
            continue
        if put(f"{path}/{name}", limit):
            return path, f"{path}/{name}"
        os.rmdir(path)
    return None


def put(path, value):
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(value))
        return True
    except OSError:
        return False


class Target:
    """A victim with what is around it. Lines it says are read as they come."""

    def __init__(self, storm):
        rng = storm.rng
        key = rng.choices(list(storm.targets), [row[0] for row in storm.targets.values()])[0]
        self.kind = storm.targets[key][1]
        self.name, *first = key.split()
        self.folder, self.lines, self.rest = tempfile.mkdtemp(), [], b""
        self.groups, self.memory_limit, self.memory = [], None, 0
        self.arguments = first + [word.format(folder=self.folder)
                                  for word in self.kind.arguments(rng)]
        self.text = " ".join([self.name, *self.arguments])
        self.command = [f"{storm.build}/victims/{self.name}", *self.arguments]
        # All the time: questions would get lost.
        self.executes = bool({"exec=20", "churn"}.intersection(self.arguments))
        # What starts and ends threads, or children, or executes itself.
        self.varies = self.kind.growing and bool(self.kind.says) or bool(
            {"exec=20", "create", "cancel", "fork"}.intersection(self.arguments))
        self.threads_vary = False
        self.is_continued = not self.kind.waits and not NEVER_CONTINUED.intersection(self.arguments)
        self.draw_surroundings(rng, storm.build)
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, preexec_fn=self.enter)
        self.pid = self.process.pid
        os.set_blocking(self.process.stdout.fileno(), False)

    def draw_surroundings(self, rng, build):
        around, is_root = rng.random(), os.geteuid() == 0
        # Without room for a copy a process is held while it is read.
        around += 0.2 if not self.kind.cut else 0
        if around < 0.15 and is_root:
            self.memory = rng.choice([64, 128, 512]) << 20
            self.join("a memory cgroup", "memory", ("memory.limit_in_bytes", "memory.max"),
                      self.memory)
            self.memory_limit = self.groups[-1][1] if self.groups else None
        elif around < 0.2 and is_root and not self.kind.growing:
            self.join("a cgroup of few processes", "pids", ("pids.max", "pids.max"), 1000)
        elif around < 0.3 and not re.search("musl|-32|shmholes|filtered|sandboxed", self.name):
            words = rng.choice([[], [], ["bpf"], ["links"]])
            self.command = [f"{build}/victims/under_filter", *words, *self.command]
            self.text += " ".join([" under a filter", *words])
        elif around < 0.4 and is_root and not re.search("prefork|sharing|paths|closer", self.text):
            os.chmod(self.folder, 0o755)
            program = shutil.copy(self.command[0], self.folder)
            self.command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--",
                            program, *self.arguments]
            self.text += " of another user"

    def join(self, name, *group):
        made = make_group(*group)
        if made:
            self.groups.append(made)
            self.text += f" in {name}"

    def enter(self):
        for path, _ in self.groups:
            put(f"{path}/cgroup.procs", os.getpid())

    def begin(self):
        """Until it is ready; false: it does not get there."""
        if self.answer(("ready",), 0) is None:
            return False
        # All threads of its have begun, and those that wait have come to that.
        if self.kind.works == "alive" and not self.executes:
            self.is_stuck()
        if self.name.startswith("in_vfork"):
            wait_for(lambda: children_of(self.pid))
        if not self.kind.cut:
            wait_for(lambda: all(state == "S" for state, _ in threads_of(self.pid).values()))
        for path, limit in self.groups:
            if limit.endswith("pids.max"):
                put(limit, len(threads_of(self.pid)) + len(self.text) % 3)
        return True

    def squeeze(self, room):
        """Leaves it no more memory than it has, and room; false: that cannot be."""
        if not self.memory_limit or self.kind.growing:
            return False
        folder = os.path.dirname(self.memory_limit)
        used = (text_of(f"{folder}/memory.usage_in_bytes") or
                text_of(f"{folder}/memory.current")).strip()
        return bool(used) and put(self.memory_limit, int(used) + room)

    def release(self):
        put(self.memory_limit, self.memory)

    def lives(self):
        return self.process.poll() is None

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
            if not self.lives():
                return None
            self.read(0.2)
        return None

    def say(self, line):
        try:
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()
            return True
        except OSError:
            return False

    def ask(self, question, *begins):
        since = len(self.lines)
        return self.answer(begins, since) if self.say(question) else None

    def works(self):
        """What is wrong with how it goes on; None: nothing."""
        for command, answer in self.kind.ends:
            if not self.ask(command, answer):
                return f"it does not answer {command}"
        # What it is told may be lost with the program that reads it; and torture is ready only once.
        if self.executes and self.kind.works == "alive":
            return None if self.lives() else "it is dead"
        if self.executes:
            since = len(self.lines)
            return None if self.answer(("ready",), since) else "it does not begin again"
        if not self.kind.works:
            return None
        if self.kind.works == "alive":
            return self.is_stuck()
        first = self.ask("ping", "pong")
        if not first:
            return "it does not answer"
        if self.kind.works == "rounds" and not wait_for(
                lambda: (self.ask("ping", "pong") or first) != first):
            return "it does not go on"
        return None

    def is_stuck(self):
        answer = self.ask("alive", "alive", "stuck")
        return None if answer == "alive" else answer or "it does not answer"

    def report(self):
        """What the threads of a torture target say: kind, wrong, eintr."""
        if self.kind.works != "alive" or self.executes:
            return []
        since = len(self.lines)
        if not self.ask("report", "reported"):
            return []
        found = (re.match(r"report (\S+) wrong=(\d+) eintr=(\d+)", line)
                 for line in self.lines[since:])
        return [(match.group(1), int(match.group(2)), int(match.group(3)))
                for match in found if match]

    def own_children(self):
        return set() if self.varies else children_of(self.pid)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        for path, _ in self.groups:
            wait_for(lambda: remove_group(path), 10)


def remove_group(path):
    # Whatever it has forked would outlive it there.
    for pid in text_of(f"{path}/cgroup.procs").split():
        if lives(pid):
            os.kill(int(pid), 9)
    try:
        os.rmdir(path)
    except OSError:
        return not os.path.exists(path)
    return True
