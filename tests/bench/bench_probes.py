"""bench.py's part `agent`, beside what reads the kernel's uprobes: bpftrace and bcc's memleak, each
with a stack for every block, as `memprobe allocs --sample 1` has it.

The victim has a libc of its own: bpftrace 0.17 sets its probes in every process that maps the file,
and a program that is being recorded at that moment would not survive it.

memleak compiles against the kernel's headers: where they are not in /lib/modules, BCC_KERNEL_SOURCE
in the environment says where they are.
"""
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

PAIRS, PAIRS_PROBED = 200000, 20000

SCRIPT = """
uprobe:LIBC:malloc /pid == PID/ { @size[tid] = arg0; }
uretprobe:LIBC:malloc /@size[tid]/ {
	@block[retval] = @size[tid]; @stack[retval] = ustack;
	@sum[ustack] = sum(@size[tid]); delete(@size[tid]);
}
uprobe:LIBC:free /@block[arg0]/ { delete(@block[arg0]); delete(@stack[arg0]); }
"""


def private_libc(folder):
    """A copy of it there; None where libc is none that this finds."""
    with open("/proc/self/maps", encoding="ascii") as maps:
        paths = {line.split()[5] for line in maps if line.rstrip().endswith("/libc.so.6")}
    if not paths:
        return None
    return shutil.copy(paths.pop(), f"{folder}/libc.so.6")


def places_of(pid, library, names):
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps:
        base = next(int(line.split("-")[0], 16) for line in maps if library in line)
    table = subprocess.run(["nm", "-D", library], check=True, stdout=subprocess.PIPE,
                           text=True).stdout
    return [base + int(line.split()[0], 16) for line in table.splitlines()
            if line.split()[-1].split("@")[0] in names and line.split()[1] in "TW"]


class Probes:
    def __init__(self, command, pid, places):
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 30
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            while not all(self.is_set(memory, place) for place in places):
                if self.process.poll() is not None or time.monotonic() > end:
                    break
                time.sleep(0.05)
        self.works = self.process.poll() is None
        time.sleep(0.5)

    @staticmethod
    def is_set(memory, place):
        memory.seek(place)
        return memory.read(1) == b"\xcc"

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()



def measure(victim, libc, recorder, rounds, found, missing):
    places = places_of(victim.pid, libc, ("malloc", "free"))
    script = f"{libc}.script"
    with open(script, "w", encoding="ascii") as file:
        file.write(SCRIPT.replace("LIBC", libc).replace("PID", str(victim.pid)))
    commands = {
        "bpftrace": ["env", "BPFTRACE_MAP_KEYS_MAX=1000000", "bpftrace", script],
        "memleak-bpfcc": ["memleak-bpfcc", "-p", str(victim.pid), "-O", libc, "600", "1"],
    }

    def turn(name, pairs):
        took = int(victim.ask(f"pairs {pairs}").split()[1])
        found.setdefault(name, []).append(took / pairs)

    for _ in range(rounds):
        turn("untraced", PAIRS)
        with recorder(victim.pid, ["--sample", "1", "--engine=agent"]):
            turn("memprobe allocs --sample 1", PAIRS)
        for name in [name for name in commands if name not in missing]:
            with Probes(commands[name], victim.pid, places) as peer:
                if peer.works:
                    turn(name, PAIRS_PROBED)
                else:
                    missing.append(name)


def probes(build, victim_class, recorder, show, rounds):
    missing = [name for name in ("bpftrace", "memleak-bpfcc") if not shutil.which(name)]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        libc = private_libc(folder)
        if libc:
            with victim_class(f"{build}/victims/allocload",
                              env={**os.environ, "LD_LIBRARY_PATH": folder}) as victim:
                measure(victim, libc, recorder, rounds, found, missing)
    if not found:
        return
    medians = {name: statistics.median(values) for name, values in found.items()}
    base = medians["untraced"]
    ours = medians["memprobe allocs --sample 1"] - base
    show(f"malloc and free, 2 threads, 64 stacks 12 deep, each block with its stack (CPU time, "
         f"medians of {rounds})", ["", "ns a pair", "added", "added, to memprobe's"],
         [[name, f"{median:.0f}", f"{median - base:+.0f}",
           f"{(median - base) / ours:.1f}x" if name != "untraced" else "-"]
          for name, median in medians.items()] +
         [[name, "not installed, or does not run here", "-", "-"] for name in missing])
