"""What memprobe must leave as it is in a process, for storm.py and series.py."""
import glob
import importlib.util
import os
import re
import time

# For what is certain to come. A hang is a fault; a busy machine is none.
PATIENCE = 120


def load_state():
    path = f"{os.path.dirname(os.path.abspath(__file__))}/../live/state.py"
    spec = importlib.util.spec_from_file_location("state", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STATE = load_state()


def wait_for(condition, seconds=PATIENCE, pause=0.002):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True


def text_of(path):
    """Of a file of /proc; empty: it is gone."""
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def threads_of(pid):
    """State and tracer of each."""
    found = {}
    for path in glob.glob(f"/proc/{pid}/task/*/status"):
        match = re.search(r"^State:\s*(\S).*^TracerPid:\s*(\d+)$", text_of(path), re.M | re.S)
        if match:
            found[int(path.split("/")[4])] = match.groups()
    return found


def lives(pid):
    state = re.search(r"^State:\s*(\S)", text_of(f"/proc/{pid}/status"), re.M)
    return state is not None and state.group(1) not in "ZX"


def is_held(pid):
    return any(state in "Tt" or tracer != "0" for state, tracer in threads_of(pid).values()
               if state not in "ZX")


def remains_in(pid):
    """The agent, its hooks and tables, and descriptors of them. What is executable and nameless may
    be the program's own: to be compared with what was there before."""
    found = []
    for line in text_of(f"/proc/{pid}/maps").splitlines():
        words = line.split(None, 5)
        if "memfd:memprobe" in line or (words[1] == "r-xp" and len(words) == 5):
            found.append(line.strip())
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
        found |= set(text_of(path).split())
    return found


def state_of(pid, threads_vary=False, padding=False):
    """As state.py tells it; without the padding where a killed memprobe may leave a stub."""
    return [line for line in STATE.state_of(pid, threads_vary)
            if padding or not line.startswith("padding")]
