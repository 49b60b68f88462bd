"""The peer of allocs --engine=uprobe: perf record on the same probes."""
import re
import shutil
import subprocess

TRACEFS = "/sys/kernel/tracing"


def with_tracefs(script):
    """A command that runs the shell script where tracefs is mounted, for itself alone."""
    return ["unshare", "-m", "sh", "-c",
            f"[ -e {TRACEFS}/uprobe_events ] || mount -t tracefs nodev {TRACEFS} || exit; {script}"]


def write_probe(text):
    return subprocess.run(with_tracefs(f"echo '{text}' >> {TRACEFS}/uprobe_events"),
                          check=False, stderr=subprocess.DEVNULL).returncode == 0


class Probes:
    """Of malloc, its return and free in libc: command is None where they are not to be had."""

    NAMES = [("malloc", ""), ("malloc", "_return"), ("free", "")]

    def __init__(self, pid, folder):
        self.command = None
        libc = None
        with open(f"/proc/{pid}/maps", encoding="ascii") as maps:
            for line in maps:
                if re.search(r"/libc[.-][^/]*$", line):
                    libc = line.split()[-1]
        if not shutil.which("perf") or not libc:
            return
        symbols = subprocess.run(["nm", "-D", "--defined-only", libc], stdout=subprocess.PIPE,
                                 check=True, text=True).stdout
        for name, suffix in self.NAMES:
            offset = re.search(rf"^([0-9a-f]+) . {name}@@", symbols, re.M)
            kind = "r" if suffix else "p"
            if not offset or not write_probe(
                    f"{kind}:memprobe_bench/{name}{suffix} {libc}:0x{offset[1]}"):
                return
        events = " ".join(f"-e memprobe_bench:{name}{suffix}" for name, suffix in self.NAMES)
        self.command = with_tracefs(f"exec perf record -q -m 16M -p {pid} -o {folder}/perf.data "
                                    f"--call-graph dwarf,2048 {events}")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for name, suffix in self.NAMES:
            write_probe(f"-:memprobe_bench/{name}{suffix}")
