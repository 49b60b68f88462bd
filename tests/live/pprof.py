#!/usr/bin/env python3
"""pprof.py FILE.pb.gz: what is in a pprof profile, as JSON.

A decoder of its own, by the fields of github.com/google/pprof, proto/profile.proto; knows nothing
of memprobe. Asserts what pprof itself asserts: every reference leads somewhere.
"""
import gzip
import json
import sys


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(data):
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 2:
            size, at = varint(data, at)
            value = data[at:at + size]
            assert len(value) == size, "cut short"
            at += size
        else:
            raise AssertionError(f"wire type {key & 7}")
        yield key >> 3, value


def message(data):
    found = {}
    for field, value in fields(data):
        found.setdefault(field, []).append(value)
    return found


def packed(data):
    at, values = 0, []
    while at < len(data):
        value, at = varint(data, at)
        values.append(value - (1 << 64) if value >> 63 else value)
    return values


def one(found, field, default=0):
    return found.get(field, [default])[-1]


def main():
    top = message(gzip.open(sys.argv[1]).read())
    strings = [text.decode() for text in top[6]]
    assert strings[0] == ""

    def text(found, field):
        return strings[one(found, field)]

    def types(field):
        return [{"type": text(m, 1), "unit": text(m, 2)} for m in map(message, top.get(field, []))]

    functions = {one(m, 1): {"name": text(m, 2), "file": text(m, 4)}
                 for m in map(message, top.get(5, []))}
    mappings = {one(m, 1): {"start": one(m, 2), "limit": one(m, 3), "offset": one(m, 4),
                            "file": text(m, 5), "build_id": text(m, 6), "has_functions": one(m, 7)}
                for m in map(message, top.get(3, []))}
    assert 0 not in functions and 0 not in mappings
    locations = {}
    for m in map(message, top.get(4, [])):
        lines = [message(line) for line in m.get(4, [])]
        mapping = one(m, 2)
        locations[one(m, 1)] = {
            "mapping": mappings[mapping]["file"] if mapping else None,
            "address": one(m, 3),
            "lines": [functions[one(line, 1)]["name"] + ":" + str(one(line, 2)) for line in lines],
        }
    samples = []
    for m in map(message, top.get(2, [])):
        values = packed(one(m, 2, b""))
        assert len(values) == len(top[1])
        samples.append({"locations": [locations[i] for i in packed(one(m, 1, b""))],
                        "values": values})
    json.dump({"sample_types": types(1), "samples": samples, "mappings": list(mappings.values()),
               "functions": list(functions.values()), "time": one(top, 9), "duration": one(top, 10),
               "period_type": types(11), "period": one(top, 12),
               "default_sample_type": text(top, 14)}, sys.stdout)


main()
