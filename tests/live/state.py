#!/usr/bin/env python3
"""Prints what memprobe must leave as it is in a process: a line a fact, to be compared by diff.

state.py PID [--threads-vary]

Stopped threads, the tracer, the threads, and every executable mapping with a hash of the bytes as
they stand in memory: its code, and the padding behind that in the last page, where a killed
memprobe may leave its stub. Running, sleeping and waiting are one state: which of them is chance.
"""
import hashlib
import os
import struct
import sys
import time


def field(text, name):
    for line in text.splitlines():
        if line.startswith(name + ":"):
            return line.split(":", 1)[1].strip()
    return "?"


def code_size(image, offset, size):
    """How much of a mapping of the ELF file's bytes from offset on is code; the rest is padding."""
    if image[:4] != b"\x7fELF":
        return size
    wide = image[4] == 2
    at, entry, count = (
        (struct.unpack_from("<Q", image, 32)[0], *struct.unpack_from("<HH", image, 54))
        if wide
        else (struct.unpack_from("<I", image, 28)[0], *struct.unpack_from("<HH", image, 42))
    )
    for i in range(count):
        kind, place, length, flags = (
            (lambda p: (p[0], p[2], p[5], p[1]))(struct.unpack_from("<IIQQQQQQ", image, at + i * entry))
            if wide
            else (lambda p: (p[0], p[1], p[4], p[6]))(struct.unpack_from("<IIIIIIII", image, at + i * entry))
        )
        if kind == 1 and flags & 1 and place & ~4095 == offset:
            return min(size, place + length - offset)
    return size


def read_image(root, start, memory, path, size):
    if path == ["[vdso]"]:
        memory.seek(start)
        return memory.read(size)
    try:
        with open(f"{root}/root{path[0]}", "rb") as file:
            return file.read(4096)
    except (OSError, IndexError):
        return b""


def digest_of(data):
    return hashlib.sha256(data).hexdigest()[:16]


def look(pid, vary, print):
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
            span, perms, offset, _, inode, *path = line.split(None, 5)
            # [uprobes] is a page that the kernel keeps once it has had a return probe there.
            if "x" not in perms or "[vsyscall]" in path or "[uprobes]" in path:
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            names = [part.encode(errors="replace") for part in path]
            if inode == "0" and "w" in perms:  # code that the program writes, e.g. a JIT's
                print("code", span, perms, "anonymous", *names)
                continue
            memory.seek(start)
            data = memory.read(end - start)
            size = code_size(read_image(root, start, memory, path, end - start), int(offset, 16), len(data))
            print("code", span, perms, digest_of(data[:size]), *names)
            print("padding", span, digest_of(data[size:]))


def state_of(pid, vary=False):
    # An execve() in between has the process without memory for an instant.
    for attempt in range(50):
        try:
            lines = []
            look(pid, vary, lambda *words: lines.append(" ".join(map(str, words))))
            return lines
        except (OSError, ValueError):
            if attempt == 49:
                raise
            time.sleep(0.002)


if __name__ == "__main__":
    print("\n".join(state_of(sys.argv[1], "--threads-vary" in sys.argv[2:])))
