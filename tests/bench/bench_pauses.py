"""How long attaching and detaching a recording keeps the threads of a process from running: by what
they see themselves, and by what memprobe says, beside as long a time in which nothing is done."""
import os
import statistics
import subprocess
import time

CYCLES = int(os.environ.get("CYCLES", "50"))


class Figures:
    def __init__(self):
        self.values = []

    def cells(self):
        values = sorted(self.values)
        return [f"{value / 1000:.2f}" for value in
                (statistics.median(values), values[len(values) * 95 // 100], values[-1])]


def wait_for(process, key):
    for line in process.stdout:
        if line.startswith(key):
            return line
    raise SystemExit(f"bench: no '{key}' of trace_loop")


def gap_of(victim, work):
    """The longest gap while `work` is done, and how long that took."""
    victim.ask("beat")
    since = time.monotonic()
    work()
    took = time.monotonic() - since
    time.sleep(0.003)
    return victim.gap(), took


def cycle(build, victim, found):
    process = subprocess.Popen([f"{build}/tests/torture/trace_loop", str(victim.pid), "rate=0",
                                "attach", "wait", "detach"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, bufsize=1)
    gap, attach = gap_of(victim, lambda: wait_for(process, "attached"))
    found["attach: gap"].values.append(gap)
    time.sleep(0.1)

    def detach():
        process.stdin.write("end\n")
        return wait_for(process, "report")

    report = []
    gap, took = gap_of(victim, lambda: report.append(detach()))
    found["detach: gap"].values.append(gap)
    words = dict(word.split("=") for word in report[0].split() if "=" in word)
    found["attach: memprobe says"].values.append(int(words["attach_us"]))
    found["detach: memprobe says"].values.append(int(words["detach_us"]))
    process.communicate()
    for name, duration in (("attach", attach), ("detach", took)):
        gap, _ = gap_of(victim, lambda duration=duration: time.sleep(duration))
        found[f"nothing, for as long as {name}"].values.append(gap)


def pauses(build, victim_class, show):
    lines = []
    for threads in 1, 8, 20:
        found = {name: Figures() for name in
                 ("attach: gap", "nothing, for as long as attach", "attach: memprobe says",
                  "detach: gap", "nothing, for as long as detach", "detach: memprobe says")}
        with victim_class(f"{build}/tests/bench/gaps", str(threads)) as victim:
            for _ in range(CYCLES):
                cycle(build, victim, found)
        lines += [[f"{threads} threads: {name}", *figures.cells()]
                  for name, figures in found.items()]
    show(f"attaching and detaching a recording: the longest gap that any thread saw, and the longest "
         f"time that\nmemprobe says it held one ({CYCLES} cycles, ms)",
         ["", "median", "95 %", "max"], lines)
