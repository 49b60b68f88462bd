#!/usr/bin/env python3
"""truth.py VICTIM-OUTPUT RECORD-OUTPUT: alloc_truth's truth against what trace_loop has read.

Live counts and bytes must be the same on every path, and nothing may be lost. A site belongs to the
path whose code one of its first frames returns to. The last truth and the last reading count.
"""
import sys


def read_truth(name):
    paths = []
    for line in open(name):
        words = line.split()
        if words and words[0] == "path":
            paths.append((int(words[1], 16), int(words[2], 16), int(words[3]), int(words[4])))
    return paths[-64:]


def read_record(name):
    sites, counters = [], {}
    for line in open(name):
        words = line.split()
        if not words:
            continue
        if words[0] == "counters":
            counters = dict(word.split("=") for word in words[1:])
        if words[0] == "attached":
            sites = []
        if words[0] == "site":
            pcs = [int(pc, 16) & ~(1 << 63) for pc in words[words.index("pcs") + 1:] if pc != "..."]
            sites.append((float(words[1]), float(words[2]), pcs))
    return sites, counters


paths = read_truth(sys.argv[1])
sites, counters = read_record(sys.argv[2])
loose = "--sampled" in sys.argv
found = [[0, 0] for _ in paths]
bad = 0
for count, size, pcs in sites:
    for pc in pcs[:4]:
        at = [i for i, path in enumerate(paths) if path[0] < pc <= path[1]]
        if at:
            found[at[0]][0] += count
            found[at[0]][1] += size
            break
    else:
        print("a site on no path:", count, size, [hex(pc) for pc in pcs])
        bad += 1
if loose:
    total = sum(path[3] for path in paths)
    seen = sum(row[1] for row in found)
    print("bytes", total, "estimated", seen)
    sys.exit(not 0.8 * total < seen < 1.2 * total)
for path, (count, size) in zip(paths, found):
    if (path[2], path[3]) != (count, size):
        print("path %x: %d of %d bytes, recorded %d of %d" % (path[0], path[2], path[3], count, size))
        bad += 1
for key in "lost", "lost_frees", "lost_threads", "lapses":
    if counters.get(key) != "0":
        print(key, counters.get(key))
        bad += 1
if len(paths) != 64 or not sum(path[2] for path in paths):
    print("no truth")
    bad += 1
print("%d blocks, %d bytes, %s recorded" % (sum(p[2] for p in paths), sum(p[3] for p in paths),
                                            counters.get("recorded")))
sys.exit(bad != 0)
