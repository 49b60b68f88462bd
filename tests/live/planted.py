#!/usr/bin/env python3
"""planted.py LIBRARY FIFO SOCKET: work.py at work, and a thread that does what the FIFO says:
`leaked COUNT SIZE` calls plant_leaked() of the library, and so on; what it returns is printed."""
import ctypes
import os
import runpy
import sys
import threading

# By its descriptor: that it is opened for writing, too, is only so that it never ends.
descriptor = os.open(sys.argv[2], os.O_RDWR)
library = ctypes.CDLL(sys.argv[1])


def plant():
    for line in open(descriptor):
        kind, count, size = line.split()
        print(getattr(library, "plant_" + kind)(int(count), int(size)), flush=True)


threading.Thread(target=plant, daemon=True).start()
del sys.argv[1:3]
runpy.run_path(os.path.join(os.path.dirname(__file__), "work.py"))
