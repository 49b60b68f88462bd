"""bench.py's part `pools`: a PostgreSQL backend under pgbench, recorded and not, in turns.

One backend serves one client all the time. In every turn its own CPU time (schedstat) and the
transactions that pgbench reports are taken, so that a turn costs a second and no start.
"""
import os
import select
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

TURNS = int(os.environ.get("TURNS", "8"))


def programs():
    found = shutil.which("pgbench")
    folders = [os.path.dirname(os.path.realpath(found))] if found else []
    root = "/usr/lib/postgresql"
    if os.path.isdir(root):
        folders += [f"{root}/{version}/bin" for version in sorted(os.listdir(root), reverse=True)]
    for folder in folders:
        if all(os.path.exists(f"{folder}/{name}") for name in ["initdb", "postgres", "pgbench"]):
            return folder
    return None


def unprivileged(command):
    if os.getuid():
        return command
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"] + command


class Server:
    def __init__(self, folder):
        self.bin, self.folder = folder, tempfile.mkdtemp(prefix="memprobe-bench.")
        os.chmod(self.folder, 0o777)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        data = f"{self.folder}/data"
        subprocess.run(unprivileged([f"{folder}/initdb", "-D", data, "-U", "tester", "-A", "trust",
                                     "--no-sync"]), check=True, **quiet)
        self.process = subprocess.Popen(unprivileged(
            [f"{folder}/postgres", "-D", data, "-k", self.folder, "-c", "listen_addresses=",
             "-c", "fsync=off", "-c", "shared_buffers=128MB", "-c", "autovacuum=off"]), **quiet)
        while self.pgbench("-i", "-q", **quiet).wait():
            time.sleep(0.2)

    def pgbench(self, *arguments, **options):
        return subprocess.Popen([f"{self.bin}/pgbench", "-h", self.folder, "-U", "tester",
                                 *arguments, "postgres"], **options)

    def backends(self):
        found = []
        for pid in open(f"/proc/{self.process.pid}/task/{self.process.pid}/children",
                        encoding="ascii").read().split():
            with open(f"/proc/{pid}/cmdline", encoding="latin-1") as line:
                if " tester postgres " in line.read():
                    found.append(int(pid))
        return found

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        shutil.rmtree(self.folder)


class Load:
    """pgbench with one client; each line of its progress is a second."""

    def __init__(self, server, arguments):
        self.process = server.pgbench(*arguments, "-n", "-c", "1", "-T", "600", "-P", "1",
                                      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0)
        self.second()
        self.backend = server.backends()[0]

    def second(self):
        """Transactions a second, of the next line."""
        while True:
            words = self.process.stderr.readline().split()
            if words and words[0] == b"progress:":
                return float(words[3])

    def cpu(self):
        with open(f"/proc/{self.backend}/schedstat", encoding="ascii") as stat:
            return int(stat.read().split()[0])

    def turn(self):
        """Transactions of a second, and the backend's CPU time for each, in us."""
        while select.select([self.process.stderr], [], [], 0)[0]:
            self.second()  # it has been there for a while
        self.second()
        begin = self.cpu()
        transactions = self.second()
        return transactions, (self.cpu() - begin) / 1000 / transactions

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait()


def spread(ratios):
    low, _, high = statistics.quantiles(ratios)
    return [f"{statistics.median(ratios):.3f}", f"{low:.3f} to {high:.3f}"]


def lines_of(load, recorder, ways):
    found = {name: [] for name in ways}
    load.turn()
    for turn in range(TURNS):
        order = list(ways.items())
        for name, options in order if turn % 2 else reversed(order):
            with recorder(load.backend, options):
                found[name].append(load.turn())
    plain = found["untraced"]
    for name, turns in found.items():
        speeds = [turn[0] / base[0] for turn, base in zip(turns, plain)]
        costs = [turn[1] / base[1] for turn, base in zip(turns, plain)]
        yield [name, f"{statistics.median(turn[0] for turn in turns):.0f}", *spread(speeds),
               f"{statistics.median(turn[1] for turn in turns):.1f}", *spread(costs)]


def pools(recorder, show):
    folder = programs()
    if not folder:
        print("pools: postgres is not installed")
        return
    ways = {"untraced": None, "sampled": ["--pool", "postgres"],
            "exact": ["--pool", "postgres", "--sample", "1"]}
    with Server(folder) as server:
        for title, arguments in [("-S", ["-S"]), ("TPC-B", [])]:
            with Load(server, arguments) as load:
                show(f"allocs --pool postgres, pgbench {title}, one client ({TURNS} turns, medians; "
                     "ratios within turns, with quartiles)",
                     ["", "tps", "ratio", "", "CPU us/tx", "ratio", ""],
                     list(lines_of(load, recorder, ways)))
