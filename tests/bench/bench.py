#!/usr/bin/env python3
"""Measures memprobe beside its peers, on the same targets, in turns, in the same run.

bench.py BUILD [PART...]	parts: stall maps dump find heap leaks core pause faults syscalls agent allocs pools uprobe
				pause_allocs stack (all)
CYCLES=N in the environment: how often pause_allocs attaches and detaches (50).
ROUNDS=N in the environment: how often leaks, core and pause are measured (5).

Prints medians and, for every row, its ratio to the row that the part compares with. Nothing here
passes or fails: how fast a machine is, and how busy, is no property of memprobe.
"""
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import bench_pauses
import bench_pools
import bench_probes
import bench_stack
import bench_uprobe

BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
MEMPROBE = f"{BUILD}/memprobe"
FLOOR = f"{BUILD}/tests/bench/floor"
# Of the parts on a whole heap, which take minutes on a busy machine.
ROUNDS = int(os.environ.get("ROUNDS", "5"))
GDB = ["gdb", "--batch", "-nx", "-p"]


class Victim:
    """A victim that speaks victim.h's language."""

    def __init__(self, *command, **options):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            **options)
        self.pid = self.process.pid
        self.truth = {}
        while True:
            key, _, value = self.line().partition(" ")
            if key == "ready":
                break
            self.truth[key] = value

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"bench: a victim ended: {self.process.args[0]}")
        return line.rstrip("\n")

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        return self.line()

    def resident(self, kind="Rss"):
        """MiB, by a field of smaps_rollup."""
        with open(f"/proc/{self.pid}/smaps_rollup", encoding="ascii") as rollup:
            for line in rollup:
                if line.startswith(kind + ":"):
                    return int(line.split()[1]) / 1024
        return 0

    def gap(self):
        return int(self.ask("gap").split()[1])

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait()


def run(command):
    """Returns seconds, peak resident MiB, exit status and output."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as usage:
        actions = [(os.POSIX_SPAWN_DUP2, output.fileno(), 1),
                   (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
                   (os.POSIX_SPAWN_DUP2, usage.fileno(), 3)]
        pid = os.posix_spawn(FLOOR, [FLOOR, "run"] + command, os.environ, file_actions=actions)
        os.waitpid(pid, 0)
        output.seek(0)
        usage.seek(0)
        microseconds, peak, status = map(int, usage.read().split())
        return microseconds / 1e6, peak / 1024, status, output.read()


class Row:
    def __init__(self, name, command, before=None, after=None):
        self.name, self.command, self.before, self.after = name, command, before, after
        self.seconds, self.peaks, self.extra = [], [], {}
        self.status = 0

    def measure(self):
        if self.before:
            self.before()
        seconds, peak, self.status, output = run(self.command)
        self.seconds.append(seconds)
        self.peaks.append(peak)
        for key, value in (self.after(output) if self.after else {}).items():
            self.extra.setdefault(key, []).append(value)

    def ms(self):
        return 1000 * statistics.median(self.seconds)

    def median(self, key):
        return statistics.median(self.extra[key]) if self.extra.get(key) else None


def measure(rows, rounds):
    for _ in range(rounds):
        for row in rows:
            row.measure()


def cell(value, unit=""):
    return "-" if value is None else f"{value:.2f}{unit}"


def show(title, header, lines):
    print(f"\n{title}")
    table = [header] + lines
    widths = [max(len(line[i]) for line in table) for i in range(len(header))]
    for line in table:
        print("  " + "  ".join(text.ljust(width) if i == 0 else text.rjust(width)
                               for i, (text, width) in enumerate(zip(line, widths))))


def status_note(row):
    return row.name if row.status == 0 else f"{row.name} (exit {row.status})"


def times(title, rows, base):
    """Wall time, against the row `base`."""
    show(title, ["", "median ms", "min", "ratio", "peak MiB"],
         [[status_note(row), cell(row.ms()), cell(1000 * min(row.seconds)),
           cell(row.ms() / base.ms(), "x"), cell(statistics.median(row.peaks))] for row in rows])


def stall():
    with Victim(f"{BUILD}/tests/bench/heartbeat", "1024") as victim:
        pid = str(victim.pid)

        def before():
            victim.ask("beat")

        def gap(output):
            found = {"gap": victim.gap() / 1000}
            try:
                found["held"] = json.loads(output)["stopped_us"] / 1000
            except (ValueError, KeyError):
                pass
            return found

        rows = [Row(name, command, before, gap) for name, command in (
            ("nothing (sleep 0.1)", ["sleep", "0.1"]),
            ("memprobe mallinfo --method=call",
             [MEMPROBE, "mallinfo", pid, "--method=call", "--json"]),
            ("memprobe trim", [MEMPROBE, "trim", pid, "--json"]),
            ("memprobe stack", [MEMPROBE, "stack", pid, "--json"]),
            ("gdb, attach only", GDB + [pid]),
            ("gdb, call (int)malloc_trim(0)", GDB + [pid, "-ex", "call (int)malloc_trim(0)"]),
        )]
        measure(rows, 7)
    base = rows[-1].median("gap")
    show("stall of a process of 1 GiB and 9 threads: a running thread's longest gap, and the "
         "longest time\nthat memprobe held any thread (medians of 7, ms)",
         ["", "gap", "held", "gap, to gdb's", "wall", "peak MiB"],
         [[status_note(row), cell(row.median("gap")), cell(row.median("held")),
           cell(row.median("gap") / base, "x"), cell(row.ms()),
           cell(statistics.median(row.peaks))] for row in rows])


def maps():
    with Victim(f"{BUILD}/victims/manymaps", "22000") as victim:
        pid = str(victim.pid)
        floor = Row("read of smaps, 1 MiB buffer", [FLOOR, "read", f"/proc/{pid}/smaps"])
        rows = [
            floor,
            Row("memprobe maps", [MEMPROBE, "maps", pid]),
            Row("memprobe maps --by-type", [MEMPROBE, "maps", pid, "--by-type"]),
            Row("pmap -x", ["pmap", "-x", pid]),
            Row("read of maps, 1 MiB buffer", [FLOOR, "read", f"/proc/{pid}/maps"]),
            Row("memprobe maps --no-usage", [MEMPROBE, "maps", pid, "--no-usage"]),
            Row("pmap", ["pmap", pid]),
        ]
        measure(rows, 9)
    times("maps of a process with 22,000 mappings (medians of 9; ratio to the read of smaps)",
          rows, floor)


def dump():
    size = 512 << 20
    folder = tempfile.mkdtemp()
    target = f"{folder}/dump"
    with Victim(f"{BUILD}/tests/bench/heartbeat", "16", "512") as victim:
        pid = str(victim.pid)
        start = int(victim.truth["blob"].split()[0], 16)

        def before():
            if os.path.exists(target):
                os.unlink(target)
            victim.ask("beat")

        def gap(_):
            return {"gap": victim.gap() / 1000}

        floor = Row("process_vm_readv + write, 1 MiB",
                    [FLOOR, "copy", pid, hex(start), str(size), target], before, gap)
        rows = [
            floor,
            Row("memprobe dump", [MEMPROBE, "dump", pid, f"{start:#x}+512M", "-o", target],
                before, gap),
            Row("gdb, dump binary memory",
                GDB + [pid, "-ex", f"dump binary memory {target} {start:#x} {start + size:#x}"],
                before, gap),
        ]
        measure(rows, 5)
    shutil.rmtree(folder)
    show("dump of 512 MiB (medians of 5; ratio of the speed to the loop's)",
         ["", "median ms", "GiB/s", "speed", "gap ms", "peak MiB"],
         [[status_note(row), cell(row.ms()), cell(0.5 / (row.ms() / 1000)),
           cell(100 * floor.ms() / row.ms(), " %"), cell(row.median("gap")),
           cell(statistics.median(row.peaks))] for row in rows])


def find():
    hits = "channelid=4099"
    with Victim(f"{BUILD}/tests/bench/blob", "512", "322121") as victim:
        pid = str(victim.pid)
        start, size = victim.truth["blob"].split()
        end = hex(int(start, 16) + int(size))
        for text, what in ((hits, "322,121 hits"), ("channelid=4098", "no hit")):
            expected = victim.truth["hits"] if text == hits else "0"

            def last_number(output):
                numbers = output.split()
                return {"count": int(numbers[-1])} if numbers and numbers[-1].isdigit() else {}

            characters = ",".join(f"(char){ord(c)}" for c in text)
            floor = Row("process_vm_readv + memmem, 1 MiB",
                        [FLOOR, "find", pid, start, size, text], after=last_number)
            rows = [
                floor,
                Row("memprobe find --count", [MEMPROBE, "find", pid, text, "--count"],
                    after=last_number),
                Row("memprobe find --count --regex",
                    [MEMPROBE, "find", pid, "--regex", text, "--count"], after=last_number),
                Row("memprobe find --max 1000", [MEMPROBE, "find", pid, text]),
                Row("memprobe strings", [MEMPROBE, "strings", pid]),
                Row("gdb, attach only", GDB + [pid]),
                Row("gdb, find", GDB + [pid, "-ex", f"find {start},{end},{characters}"]),
            ]
            measure(rows, 5)
            show(f"search of 512 MiB, {what} (medians of 5; ratio to the loop; no thread is held "
                 "but by gdb)", ["", "median ms", "min", "ratio", "counted", "peak MiB"],
                 [[status_note(row), cell(row.ms()), cell(1000 * min(row.seconds)),
                   cell(row.ms() / floor.ms(), "x"),
                   "-" if row.median("count") is None else
                   f"{row.median('count'):.0f}" + ("" if str(int(row.median("count"))) == expected
                                                   else " WRONG"),
                   cell(statistics.median(row.peaks))] for row in rows])


def heap():
    with Victim(f"{BUILD}/victims/leaks", "4000000") as victim:
        pid = str(victim.pid)
        held = {"after": lambda output: {"held": json.loads(output)["stopped_us"] / 1000}}
        rows = [Row("memprobe mallinfo", [MEMPROBE, "mallinfo", pid])] + [
            Row(f"memprobe heap --by {by}", [MEMPROBE, "heap", pid, "--by", by, "--json"], **held)
            for by in ("size", "type", "content")]
        measure(rows, 5)
    show("a census of 4 M blocks, 1.1 GiB (medians of 5)",
         ["", "median ms", "min", "ratio", "held ms", "peak MiB"],
         [[status_note(row), cell(row.ms()), cell(1000 * min(row.seconds)),
           cell(row.ms() / rows[0].ms(), "x"), cell(row.median("held")),
           cell(statistics.median(row.peaks))] for row in rows])


def lsan_check(victim, report):
    """Seconds of the check that the victim makes of itself, and how many leaks it found."""
    report.seek(0)
    report.truncate()
    seconds = int(victim.ask("check").split()[1]) / 1e6
    report.seek(0)
    found = re.findall(r"leaked in (\d+) allocation", report.read())
    return seconds, int(found[-1]) if found else 0


def leaks_of(shape, folder):
    """One shape of heap: the lines of its table."""
    with Victim(f"{BUILD}/tests/bench/leaky", shape) as victim, \
            open(f"{folder}/lsan", "w+", encoding="utf-8") as report, \
            Victim(f"{BUILD}/tests/bench/leaky-lsan", shape, stderr=report) as sanitized:
        pid = str(victim.pid)
        heap = victim.resident()
        planted = int(victim.truth["leaked"].split()[0])

        def count(output):
            try:
                return {"found": json.loads(output)["totals"]["leaked_count"]}
            except (ValueError, KeyError):
                return {}

        def forget():
            if os.path.exists(f"{folder}/core.{pid}"):
                os.unlink(f"{folder}/core.{pid}")

        rows = [Row("memprobe leaks", [MEMPROBE, "leaks", pid, "--json"], None, count),
                Row("gcore alone", ["gcore", "-o", f"{folder}/core", pid], forget)]
        checks = []
        for _ in range(ROUNDS):
            measure(rows, 1)
            checks.append(lsan_check(sanitized, report))
        forget()
    base = statistics.median(seconds for seconds, _ in checks)
    lines = [[f"{shape}: {status_note(row)}", cell(row.ms()), cell(1000 * min(row.seconds)),
              cell(row.ms() / 1000 / base, "x"),
              f"{row.median('found'):.0f}" if row.extra else "-",
              cell(100 * statistics.median(row.peaks) / heap, " %")] for row in rows]
    lines.append([f"{shape}: LeakSanitizer, its check alone", cell(1000 * base),
                  cell(1000 * min(seconds for seconds, _ in checks)), cell(1.0, "x"),
                  f"{checks[0][1]}", "-"])
    return lines, planted


def leaks():
    lines, planted = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for shape in ("flat", "list", "tree", "wide"):
            more, planted = leaks_of(shape, folder)
            lines += more
    show(f"{planted} leaks in a heap of 1.1 GiB and 4 million blocks that hang together in several "
         f"ways\n(medians of {ROUNDS}; ratio to LeakSanitizer's check of the same program, inside of it, "
         "once all is linked\nagainst it; memory to the target's; chap, which reads gcore's "
         "files, is in no distribution)",
         ["", "median ms", "min", "ratio", "found", "memory"], lines)


def core():
    folder = tempfile.mkdtemp()
    path = f"{folder}/core"
    with Victim(f"{BUILD}/tests/bench/heartbeat", "1024") as victim:
        pid = str(victim.pid)

        def before():
            for name in os.listdir(folder):
                os.unlink(f"{folder}/{name}")
            victim.ask("beat")

        def after(_):
            gap = victim.gap() / 1000
            size = sum(os.stat(f"{folder}/{name}").st_blocks for name in os.listdir(folder))
            return {"gap": gap, "size": 100 * size / 2048 / victim.resident()}

        rows = [Row("gcore", ["gcore", "-o", path, pid], before, after),
                Row("memprobe core", [MEMPROBE, "core", pid, "-o", path], before, after),
                Row("memprobe core --compress",
                    [MEMPROBE, "core", pid, "--compress", "-o", path], before, after)]
        measure(rows, ROUNDS)
    shutil.rmtree(folder)
    show(f"core of a process of 1 GiB and 9 threads (medians of {ROUNDS}; blocks of the file to what is "
         "resident)",
         ["", "median ms", "ratio", "gap ms", "file", "peak MiB"],
         [[status_note(row), cell(row.ms()), cell(row.ms() / rows[0].ms(), "x"),
           cell(row.median("gap")), cell(row.median("size"), " %"),
           cell(statistics.median(row.peaks))] for row in rows])


def pause_of(name, environment):
    """With one kind of pages: the lines of its table."""
    folder = tempfile.mkdtemp()
    with Victim(f"{BUILD}/tests/bench/leaky", "flat", env={**os.environ, **environment}) as victim:
        pid = str(victim.pid)
        gib = victim.resident() / 1024
        huge = 100 * victim.resident("AnonHugePages") / victim.resident()
        victim.ask("pulse")

        def before():
            for file in os.listdir(folder):
                os.unlink(f"{folder}/{file}")
            victim.ask("beat")

        def after(output):
            found = {"gap": victim.gap() / 1000}
            try:
                found["held"] = json.loads(output)["stopped_us"] / 1000
            except (ValueError, KeyError):
                pass
            return found

        rows = [Row(what, command, before, after) for what, command in (
            ("nothing (sleep 1)", ["sleep", "1"]),
            ("memprobe leaks", [MEMPROBE, "leaks", pid, "--json"]),
            ("memprobe heap", [MEMPROBE, "heap", pid, "--json"]),
            ("memprobe core", [MEMPROBE, "core", pid, "-o", f"{folder}/core"]),
            ("gcore", ["gcore", "-o", f"{folder}/core", pid]),
        )]
        measure(rows, ROUNDS)
    shutil.rmtree(folder)
    return [[f"{name} ({huge:.0f} % huge): {status_note(row)}", cell(row.median("gap")),
             cell(row.median("gap") / gib), cell(row.median("held")), cell(row.ms())]
            for row in rows]


def pause():
    lines = pause_of("small pages", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"})
    lines += pause_of("huge pages", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"})
    show(f"pause of a process of 1.1 GiB: a running thread's longest gap, and the time that "
         f"memprobe says it\nheld the process (medians of {ROUNDS}, ms)",
         ["", "gap", "gap per GiB", "held", "wall"], lines)


def while_recording(recorder, victim, request, folder):
    """Nanoseconds that the victim took for its request while the recorder ran, and its output."""
    output = f"{folder}/record"
    if recorder:
        with open(output, "wb") as stdout, open(f"{output}.err", "wb") as stderr:
            process = subprocess.Popen(recorder, stdout=stdout, stderr=stderr)
        wait = time.monotonic() + 20
        ready = b"recording begins" if recorder[0] == MEMPROBE else None
        while time.monotonic() < wait:
            time.sleep(0.2)
            with open(f"{output}.err", "rb") as stderr:
                if ready is None or ready in stderr.read():
                    break
        if ready is None:
            time.sleep(1)
    taken = int(victim.ask(request).split()[1])
    if recorder:
        process.send_signal(signal.SIGINT)
        process.wait()
        with open(output, "rb") as stdout:
            return taken, stdout.read()
    return taken, b""


def recording(title, victim, request, count, rows):
    """rows: name, command (None: untraced), what counts the lost events of its output."""
    folder = tempfile.mkdtemp()
    taken = {name: [] for name, _, _ in rows}
    lost = {}
    for _ in range(ROUNDS):
        for name, command, lost_of in rows:
            nanoseconds, output = while_recording(command, victim, request, folder)
            taken[name].append(nanoseconds / count / 1000)
            if lost_of:
                lost.setdefault(name, []).append(lost_of(output))
    shutil.rmtree(folder)
    base = statistics.median(taken[rows[0][0]])
    show(title, ["", "us each", "min", "added us", "ratio", "lost"],
         [[name, cell(statistics.median(values)), cell(min(values)),
           cell(statistics.median(values) - base), cell(statistics.median(values) / base, "x"),
           str(max(lost[name])) if name in lost else "-"] for name, values in taken.items()])


def lost_of_json(output):
    return json.loads(output)["lost"]


def faults():
    with Victim(f"{BUILD}/victims/faultshape") as victim, \
            tempfile.TemporaryDirectory() as folder:
        pid = str(victim.pid)
        perf = ["perf", "record", "-q", "-e", "page-faults", "-c", "1", "-p", pid, "-o",
                f"{folder}/perf.data"]
        rows = [("untraced", None, None),
                ("memprobe faults", [MEMPROBE, "faults", pid, "--json", "-v"], lost_of_json),
                ("memprobe faults --all", [MEMPROBE, "faults", pid, "--all", "--json", "-v"],
                 lost_of_json)]
        if shutil.which("perf"):
            rows += [("perf record -g (frame pointers)", perf + ["-g"], None),
                     ("perf record --call-graph dwarf", perf + ["--call-graph", "dwarf"], None)]
        recording(f"100,000 page faults (medians of {ROUNDS})", victim, "faults 100000", 100000,
                  rows)


def syscalls():
    with Victim(f"{BUILD}/victims/mapcalls") as victim, tempfile.TemporaryDirectory() as folder:
        pid = str(victim.pid)
        rows = [("untraced", None, None),
                ("memprobe syscalls", [MEMPROBE, "syscalls", pid, "--json", "-v"], lost_of_json),
                ("the same --stack-size 8K",
                 [MEMPROBE, "syscalls", pid, "--json", "-v", "--stack-size", "8K"], lost_of_json),
                ("memprobe syscalls --engine=ptrace",
                 [MEMPROBE, "syscalls", pid, "--json", "-v", "--engine=ptrace"], lost_of_json)]
        if shutil.which("perf"):
            rows.append(("perf record -g on sys_enter_mmap only",
                         ["perf", "record", "-q", "-g", "-e", "syscalls:sys_enter_mmap", "-p", pid,
                          "-o", f"{folder}/perf.data"], None))
        if shutil.which("strace"):
            rows.append(("strace -e trace=%memory", ["strace", "-q", "-e", "trace=%memory", "-o",
                                                     f"{folder}/strace", "-p", pid], None))
        recording(f"20,000 pairs of mmap and munmap (medians of {ROUNDS})", victim, "pairs 20000",
                  20000, rows)
        recording(f"100,000 pairs (medians of {ROUNDS})", victim, "pairs 100000", 100000, rows[:3])


def agent():
    """ns of a malloc and free pair, in turns with the same loop under heaptrack."""
    program = f"{BUILD}/tests/bench/agent_cost"
    preload = "/usr/lib/heaptrack/libheaptrack_preload.so"
    modes = ["plain", "inactive", "sampling", "exact"]
    found = {}

    def one(command, environment, rename=None):
        output = subprocess.run(command, env={**os.environ, **environment}, check=True,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        result = {}
        for line in output.stdout.splitlines():
            mode, median, _ = line.split()
            result[rename or mode] = float(median)
        return result

    for _ in range(5):
        times = one([program] + modes, {})
        if os.path.exists(preload):
            with tempfile.TemporaryDirectory() as folder:
                times |= one([program, "plain"], {
                    "LD_PRELOAD": preload, "DUMP_HEAPTRACK_OUTPUT": f"{folder}/raw"}, "heaptrack")
        for mode, time in times.items():
            found.setdefault(mode, []).append((time, time - times["plain"]))
    lines = [[mode, f"{statistics.median(t for t, _ in pairs):.0f}",
              f"{statistics.median(added for _, added in pairs):+.0f}"]
             for mode, pairs in found.items()]
    show("a pair of malloc and free, 100,000 live, 64 stacks 12 deep (thread CPU time)",
         ["", "ns", "added"], lines)
    bench_probes.probes(BUILD, Victim, Recorder, show, ROUNDS)


HEAPTRACK = "/usr/lib/heaptrack/libheaptrack_preload.so"


class Recorder:
    """memprobe allocs with these options at work on a process; nothing if they are None."""

    def __init__(self, pid, options):
        self.process = None
        if options is None:
            return
        self.process = subprocess.Popen([MEMPROBE, "allocs", str(pid), "--json", "-v"] + options,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while b"recording begins" not in self.process.stderr.readline():
            if self.process.poll() is not None:
                sys.exit("bench: memprobe allocs does not record")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.communicate()


def allocs_pairs():
    """Full speed and a pace, each way in turns; heaptrack has a process of its own."""
    pairs, paced, rate = 400000, 200000, 100000
    folder = tempfile.mkdtemp()
    program = f"{BUILD}/victims/allocload"
    full, slow, p99 = {}, {}, {}
    ways = [("untraced", None), ("memprobe allocs", []), ("memprobe allocs --sample 1",
                                                          ["--sample", "1"])]
    with Victim(program) as victim:
        preloaded = None
        if os.path.exists(HEAPTRACK):
            preloaded = Victim(program, env={**os.environ, "LD_PRELOAD": HEAPTRACK,
                                             "DUMP_HEAPTRACK_OUTPUT": f"{folder}/raw"})
        for _ in range(ROUNDS):
            turns = [(name, victim, options) for name, options in ways]
            if preloaded:
                turns.append(("heaptrack, preloaded", preloaded, None))
            for name, process, options in turns:
                with Recorder(process.pid, options):
                    took = process.ask(f"pairs {pairs}").split()
                    full.setdefault(name, []).append(int(took[1]) / pairs)
                    took = process.ask(f"paced {paced} {rate}").split()
                    slow.setdefault(name, []).append(int(took[1]) / 1e9 / (paced / rate))
                    p99.setdefault(name, []).append(int(took[2]) / 1e3)
        if preloaded:
            preloaded.__exit__()
    shutil.rmtree(folder)
    base, base_slow = (statistics.median(times["untraced"]) for times in (full, slow))
    show(f"malloc and free, 2 threads, 64 stacks 12 deep (CPU time, medians of {ROUNDS})",
         ["", "ns a pair", "added", "cores at 100,000/s", "added", "p99 us"],
         [[name, cell(statistics.median(full[name])), cell(statistics.median(full[name]) - base),
           f"{statistics.median(slow[name]):.3f}",
           f"{statistics.median(slow[name]) - base_slow:+.3f}",
           cell(statistics.median(p99[name]))] for name in full])


def redis_rate(socket, test):
    output = subprocess.run(["redis-benchmark", "-s", socket, "--csv", "-t", test, "-n", "200000",
                             "-r", "10000", "-d", "200", "-c", "8"], check=True,
                            stdout=subprocess.PIPE, text=True)
    return float(output.stdout.splitlines()[-1].split(",")[1].strip('"'))


def allocs_redis():
    """Requests a second, traced against untraced of the same turn, with a 95 % interval."""
    if not shutil.which("redis-server"):
        return
    folder = tempfile.mkdtemp()
    server = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", f"{folder}/redis",
                               "--save", "", "--dir", folder], stdout=subprocess.DEVNULL)
    while not os.path.exists(f"{folder}/redis"):
        time.sleep(0.05)
    rounds = 3 * ROUNDS
    lines = []
    for test in ["set", "get"]:
        plain, ratios = [], []
        redis_rate(f"{folder}/redis", test)
        for turn in range(rounds):
            rates = {}
            for traced in [False, True] if turn % 2 else [True, False]:
                with Recorder(server.pid, [] if traced else None):
                    rates[traced] = redis_rate(f"{folder}/redis", test)
            plain.append(rates[False])
            ratios.append(100 * (rates[True] / rates[False] - 1))
        spread = 1.96 * statistics.stdev(ratios) / rounds ** 0.5
        lines.append([test, cell(statistics.median(plain)), f"{statistics.mean(ratios):+.1f} %",
                      f"{statistics.mean(ratios) - spread:+.1f} to "
                      f"{statistics.mean(ratios) + spread:+.1f} %"])
    server.terminate()
    server.wait()
    shutil.rmtree(folder)
    show(f"redis-server under redis-benchmark, default sampling ({rounds} turns)",
         ["", "requests/s", "recorded", "95 % interval"], lines)


def allocs():
    allocs_pairs()
    allocs_redis()


def uprobe():
    with Victim(f"{BUILD}/victims/allocload") as victim, tempfile.TemporaryDirectory() as folder:
        with bench_uprobe.Probes(victim.pid, folder) as probes:
            record = [MEMPROBE, "allocs", str(victim.pid), "--json", "-v", "--engine=uprobe"]
            rows = [("untraced", None, None)] + [
                (f"memprobe allocs --engine=uprobe --sample {rate}", record + ["--sample", rate],
                 lost_of_json) for rate in ("1", "64K")]
            if probes.command:
                rows.append(("perf record --call-graph dwarf,2048, the same probes",
                             probes.command, None))
            # CPU time: how long it takes besides depends on who else wants the CPUs.
            recording("hits of probes, 3 by each of 100,000 pairs of malloc and free in 2 threads: a "
                      f"hit (CPU time, medians of {ROUNDS})", victim, "pairs 100000", 300000, rows)


def main():
    wanted = sys.argv[2:] or ["stall", "maps", "dump", "find", "heap", "leaks", "core", "pause",
                              "faults", "syscalls", "agent", "allocs", "pools", "uprobe",
                              "pause_allocs", "stack"]
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; compare within a table only")
    for name in wanted:
        {"stall": stall, "maps": maps, "dump": dump, "find": find, "heap": heap,
         "leaks": leaks, "core": core, "pause": pause,
         "faults": faults, "syscalls": syscalls, "agent": agent,
         "allocs": allocs, "pools": lambda: bench_pools.pools(Recorder, show),
         "uprobe": uprobe,
         "pause_allocs": lambda: bench_pauses.pauses(BUILD, Victim, show),
         "stack": lambda: bench_stack.stack(BUILD, ROUNDS)}[name]()


if __name__ == "__main__":
    main()
