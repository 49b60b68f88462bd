#!/usr/bin/env python3
"""Prints what memprobe must leave as it is in a process: a line a fact, to be compared by diff.

state.py PID [--threads-vary]

Stopped threads, the tracer, the threads, and every executable mapping with a hash of the bytes as
they stand in memory. Running, sleeping and waiting are one state: which of them is chance.
"""
import hashlib
import os
import sys


def field(text, name):
    for line in text.splitlines():
        if line.startswith(name + ":"):
            return line.split(":", 1)[1].strip()
    return "?"


def main():
    pid = sys.argv[1]
    vary = "--threads-vary" in sys.argv[2:]
    root = f"/proc/{pid}"
    stopped = []
    tids = os.listdir(f"{root}/task")
    for tid in tids:
        try:
            with open(f"{root}/task/{tid}/status", errors="replace") as file:
                text = file.read()
        except (FileNotFoundError, ProcessLookupError):
            continue
        state = field(text, "State")[:1]
        if state in "TtZX":
            stopped.append(state if vary else f"{tid}={state}")
        if field(text, "TracerPid") != "0":
            print("traced", tid, "by", field(text, "TracerPid"))
    print("stopped", *sorted(stopped))
    if not vary:
        print("threads", len(tids))
    with open(f"{root}/maps", errors="surrogateescape") as file:
        maps = file.read().splitlines()
    with open(f"{root}/mem", "rb", buffering=0) as memory:
        for line in maps:
            span, perms, _, _, inode, *path = line.split(None, 5)
            if "x" not in perms or "[vsyscall]" in path:
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            digest = "anonymous"  # code that the program itself writes, e.g. a JIT's
            if inode != "0" or "w" not in perms:
                memory.seek(start)
                digest = hashlib.sha256(memory.read(end - start)).hexdigest()[:16]
            print("code", span, perms, digest, *[part.encode(errors="replace") for part in path])


main()
