"""bench.py's part `stack`: threads unwound a second, by memprobe's two libraries and by its peers.

The target is a python3 with 100 threads that wait in nested calls. The libraries work on one copy of
the threads' registers and stacks; `first` is the pass that reads the call frame information. The
programs are measured whole: start, attaching, unwinding, names, and the time the target is held.
"""
import os
import shutil
import statistics
import subprocess
import sys
import time

THREADS = 100
TARGET = f"""
import threading, sys
never = threading.Event()
def nested(depth):
    return max([depth], key=nested_again) if depth else never.wait()
def nested_again(depth):
    return nested(depth - 1) or 0
for _ in range({THREADS}):
    threading.Thread(target=nested, args=(8,), daemon=True).start()
print("ready", flush=True)
never.wait()
"""


def threads_of(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def libraries(build, pid, rounds):
    output = subprocess.run([f"{build}/tests/tools/unwind_compare", "--time", str(pid),
                             str(rounds)], check=True, capture_output=True, text=True).stdout
    print(f"{'library':<28}{'threads':>8}{'frames':>8}{'first':>10}{'then':>10}{'threads/s':>11}")
    for line in output.splitlines():
        name, threads, frames, first, then = line.split()
        rate = int(threads) * 1e6 / max(int(then), 1)
        print(f"{name:<28}{threads:>8}{frames:>8}{int(first) / 1000:>8.1f}ms"
              f"{int(then) / 1000:>8.1f}ms{rate:>11.0f}")


def programs(build, pid):
    yield "memprobe stack", [f"{build}/memprobe", "stack", str(pid)]
    if shutil.which("gdb"):
        yield "gdb: thread apply all bt", ["gdb", "--batch", "-nx", "-ex", "set debuginfod enabled off",
                                           "-ex", "set pagination off", "-ex",
                                           "thread apply all bt", "-p", str(pid)]
    if shutil.which("eu-stack"):
        yield "eu-stack", ["eu-stack", "-p", str(pid)]
    if shutil.which("py-spy"):
        yield "py-spy dump --native", ["py-spy", "dump", "--native", "--pid", str(pid)]


def stack(build, rounds):
    with subprocess.Popen([sys.executable, "-c", TARGET], stdout=subprocess.PIPE,
                          text=True) as target:
        try:
            target.stdout.readline()
            while threads_of(target.pid) < THREADS + 1:
                time.sleep(0.1)
            time.sleep(1)
            print(f"\nstack: python3 with {threads_of(target.pid)} threads")
            libraries(build, target.pid, 10)
            print(f"\n{'program, all of it':<28}{'median':>10}{'threads/s':>11}")
            for name, command in programs(build, target.pid):
                taken = []
                for _ in range(rounds):
                    begun = time.monotonic()
                    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   check=False)
                    taken.append(time.monotonic() - begun)
                median = statistics.median(taken)
                print(f"{name:<28}{1000 * median:>8.0f}ms{(THREADS + 1) / median:>11.0f}")
        finally:
            target.kill()
