#!/usr/bin/env python3
"""foreign_probe.py FILE FUNCTION[%return]...: uprobes as other tools set them, in every process that
has FILE mapped.

Each line of the input turns them on or off. Answers `on`, or `off` and how often each was hit.
"""
import ctypes
import os
import re
import struct
import subprocess
import sys

PERF_EVENT_OPEN = 298
libc = ctypes.CDLL(None, use_errno=True)
path = ctypes.create_string_buffer(os.fsencode(sys.argv[1]))


def read(name):
    with open(name) as file:
        return file.read().strip()


def of_file(option):
    return subprocess.run(["readelf", option, "-W", sys.argv[1]], stdout=subprocess.PIPE, text=True,
                          check=True).stdout


def offsets():
    """Of all functions, in the file."""
    loads = [[int(word, 16) for word in line.split()[1:5]]
             for line in of_file("-l").splitlines() if line.split()[:1] == ["LOAD"]]
    found = {}
    for line in of_file("--dyn-syms").splitlines():
        words = line.split()
        if len(words) < 8 or words[3] not in ("FUNC", "IFUNC") or words[6] == "UND":
            continue
        value = int(words[1], 16)
        for offset, address, _, size in loads:
            if address <= value < address + size:
                found.setdefault(re.sub("@.*", "", words[7]), value - address + offset)
    return found


def online():
    for part in read("/sys/devices/system/cpu/online").split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def open_probe(offset, is_return):
    """One event for each CPU, of all processes."""
    kind = int(read("/sys/bus/event_source/devices/uprobe/type"))
    attributes = struct.pack("=IIQQQQQIIQQ", kind, 128, is_return, 0, 0, 0, 0, 0, 0,
                             ctypes.addressof(path), offset).ljust(128, b"\0")
    events = []
    for cpu in online():
        event = libc.syscall(PERF_EVENT_OPEN, attributes, -1, cpu, -1, 8)
        if event < 0:
            sys.exit(f"perf_event_open: {os.strerror(ctypes.get_errno())}")
        events.append(event)
    return events


def hits(events):
    count = sum(struct.unpack("=Q", os.read(event, 8))[0] for event in events)
    for event in events:
        os.close(event)
    return count


known = offsets()
probes = {}
for _ in sys.stdin:
    if probes:
        counts = " ".join(f"{name}={hits(events)}" for name, events in probes.items())
        probes = {}
        print("off", counts, flush=True)
        continue
    for name in sys.argv[2:]:
        function, _, is_return = name.partition("%")
        probes[name] = open_probe(known[function], bool(is_return))
    print("on", flush=True)
