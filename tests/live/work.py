#!/usr/bin/env python3
"""A program at work: three threads that allocate and check what they made, and one that answers
every connection to the unix socket argv[1] with the number of rounds done, or with what went wrong."""
import json
import socket
import sys
import threading
import time

rounds = 0
wrong = ""


def work(seed):
    global rounds, wrong
    while not wrong:
        data = {str(i): [i * seed] * (i % 50) for i in range(300)}
        if json.loads(json.dumps(data)) != data:
            wrong = "wrong data"
        before = time.monotonic()
        time.sleep(0.001)
        if time.monotonic() - before < 0.001:
            wrong = "short sleep"
        rounds += 1


for seed in range(3):
    threading.Thread(target=work, args=(seed + 1,), daemon=True).start()
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
while True:
    connection, _ = server.accept()
    connection.sendall((wrong or str(rounds)).encode())
    connection.close()
