#!/usr/bin/env python3
"""make docs: real output for README.md and the manual pages, and the picture of a flame graph.

docs.py BUILD [FILE...]

Starts the demo's server and redis-server, runs the commands of EXAMPLES on them, and replaces what
stands in the files between

    <!-- example NAME -->      and  <!-- end -->      (Markdown)
    .\\" example NAME           and  .\\" end            (manual pages)

The picture is contrib/docs/flame.png (rsvg-convert draws it). Runs as root, in a PID namespace of
its own, so that there is but one process of each name.
"""
import fcntl
import glob
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WIDTH = 88

# name: what is typed, one command a line. BEFORE is done first and not shown.
EXAMPLES = {
    "diagnose": ["memprobe leaky"],
    "maps": ["memprobe maps leaky --by-type"],
    "threads": ["memprobe threads leaky"],
    "stack": ["memprobe stack leaky --tid {pid}"],
    "mallinfo": ["memprobe mallinfo leaky"],
    "heap": ["memprobe heap leaky --top 3"],
    "heap-content": ["memprobe heap leaky --by content --top 2"],
    "leaks": ["memprobe leaks leaky"],
    "find": ["memprobe find leaky channel=fax --in heap --max 2"],
    "strings": ["memprobe strings leaky --in heap --top 3"],
    "call": ["memprobe call leaky 'getpid()'"],
    "check": ["memprobe check leaky"],
    "dry-run": ["memprobe trim leaky --dry-run"],
    "allocs": ["memprobe allocs leaky -d 4 --reachable"],
    "diff": ["memprobe heap leaky --json -o before.json",
             "memprobe heap leaky --json -o after.json",
             "memprobe diff before.json after.json"],
    "trim": ["memprobe trim leaky"],
    "oom": ["memprobe oom dmesg.txt"],
    "faults": ["memprobe faults redis-server -d 4 --top 1"],
    "syscalls": ["memprobe syscalls redis-server -d 4 --top 1"],
}
# While these run, the servers are asked.
BUSY = {"allocs", "faults", "syscalls"}


class Servers:
    def __init__(self, build, work):
        leaky = os.path.join(build, "demo", "leaky")
        # Another name, so that the server is the only `leaky`.
        self.client = shutil.copy(leaky, os.path.join(work, "client"))
        self.port_file = os.path.join(work, "port")
        self.processes = [subprocess.Popen([leaky, "server", self.port_file, "600"])]
        self.pid = self.processes[0].pid
        while not (os.path.exists(self.port_file) and os.path.getsize(self.port_file)):
            time.sleep(0.05)
        with open(self.port_file) as file:
            self.port = file.read().strip()
        self.socket = os.path.join(work, "redis")
        self.processes.append(subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", self.socket, "--save", "",
             "--dir", work], stdout=subprocess.DEVNULL))
        while not os.path.exists(self.socket):
            time.sleep(0.05)

    def ask(self, count):
        subprocess.run([self.client, "client", self.port, str(count)], check=True,
                       stdout=subprocess.DEVNULL)

    def traffic(self, seconds):
        end = time.monotonic() + seconds
        benchmark = subprocess.Popen(
            ["redis-benchmark", "-s", self.socket, "-q", "-r", "1000000", "-n", "100000000",
             "-d", "100", "-t", "set"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while time.monotonic() < end:
            self.ask(4000)
        benchmark.terminate()
        benchmark.wait()

    def end(self):
        for process in self.processes:
            process.terminate()
            process.wait()


def output_of(build, work, command):
    """As on a terminal of WIDTH columns, without colours and progress."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, WIDTH, 0, 0))
    attributes = termios.tcgetattr(slave)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    environment = dict(os.environ, PATH=build + ":" + os.environ["PATH"], NO_COLOR="1")
    process = subprocess.Popen(["bash", "-c", command], stdout=slave, stderr=subprocess.PIPE,
                               cwd=work, env=environment)
    os.close(slave)
    text = b""
    while True:
        try:
            piece = os.read(master, 1 << 16)
        except OSError:
            break
        if not piece:
            break
        text += piece
    os.close(master)
    text += process.stderr.read()
    if process.wait() != 0:
        sys.exit(f"docs: {command}: exit status {process.returncode}\n{text.decode()}")
    # Without the tables that were shown while it recorded.
    return text.decode().rpartition("\x1b[J")[2].rstrip("\n")


def run_examples(build, work):
    servers = Servers(build, work)
    results = {}
    try:
        servers.ask(20000)
        for name, commands in EXAMPLES.items():
            busy = None
            if name in BUSY:
                busy = threading.Thread(target=servers.traffic, args=(6,))
                busy.start()
                time.sleep(1)
            lines = []
            for command in commands:
                if name == "diff" and "after" in command:
                    servers.ask(4000)
                command = command.format(pid=servers.pid)
                lines.append("$ " + command)
                lines.append(output_of(build, work, command))
            results[name] = "\n".join(line.rstrip() for line in "\n".join(lines).split("\n")
                                      if line or name not in ("diff", ))
            if busy:
                busy.join()
        busy = threading.Thread(target=servers.traffic, args=(6,))
        busy.start()
        output_of(build, work, "memprobe allocs redis-server --all -d 4 -o flame.svg")
        busy.join()
    finally:
        servers.end()
    return results


def picture(work):
    directory = os.path.join(ROOT, "contrib", "docs")
    os.makedirs(directory, exist_ok=True)
    subprocess.run(["rsvg-convert", "-w", "1200", "-o", os.path.join(directory, "flame.png"),
                    os.path.join(work, "flame.svg")], check=True)


def replace(path, results):
    with open(path, encoding="utf-8") as file:
        old = file.read()

    def markdown(match):
        return f"{match[1]}```\n{results[match[2]]}\n```\n{match[3]}"

    def manual(match):
        text = results[match[2]].replace("\\", "\\e").replace("-", "\\-")
        lines = ["\\&" + line if line[:1] in (".", "'") else line for line in text.split("\n")]
        return match[1] + "\n".join(lines) + "\n" + match[3]

    new = re.sub(r"(<!-- example (\S+) -->\n).*?(<!-- end -->\n)", markdown, old, flags=re.S)
    new = re.sub(r'(\.\\" example (\S+)\n).*?(\.\\" end\n)', manual, new, flags=re.S)
    if new != old:
        with open(path, "w", encoding="utf-8") as file:
            file.write(new)


def main():
    if os.getpid() != 1:
        os.execvp("unshare", ["unshare", "--pid", "--fork", "--mount-proc", sys.executable,
                              *sys.argv])
    build = os.path.abspath(sys.argv[1])
    files = sys.argv[2:] or ([os.path.join(ROOT, "README.md")] +
                             glob.glob(os.path.join(ROOT, "man", "*.1")))
    with tempfile.TemporaryDirectory() as work:
        shutil.copy(os.path.join(ROOT, "tests", "unit", "oom", "4.4-article.log"),
                    os.path.join(work, "dmesg.txt"))
        results = run_examples(build, work)
        picture(work)
    for path in files:
        replace(path, results)


main()
