"""An interactive bash that handles signals: shell.py MEMPROBE. Fails if memprobe cannot use it."""
import os
import pty
import select
import signal
import subprocess
import sys
import time

PROMPT = b"# "


def wait_for(fd, text):
    seen = b""
    end = time.time() + 60
    while text not in seen:
        assert time.time() < end, f"no {text} in {seen}"
        if select.select([fd], [], [], 1)[0]:
            seen += os.read(fd, 65536)


def probe(what, *arguments):
    done = subprocess.run([sys.argv[1], *arguments], capture_output=True, text=True, timeout=60)
    print(what, arguments[0], done.returncode, done.stderr.strip())
    return done.returncode == 0


def main():
    pid, fd = pty.fork()
    if pid == 0:
        # Who runs the tests in the background may ignore it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.environ.update(PS1="bash-0.0# ", TERM="xterm")
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
    wait_for(fd, PROMPT)
    good = probe("fresh", "trim", str(pid))
    os.write(fd, b"trap 'echo handled' USR1; trap 'x=$(echo 1)' WINCH CHLD\n")
    wait_for(fd, PROMPT)
    os.kill(pid, signal.SIGUSR1)
    os.kill(pid, signal.SIGWINCH)
    wait_for(fd, b"handled")
    os.write(fd, b"for i in 1 2 3; do /bin/true; done\n")
    wait_for(fd, PROMPT)
    good &= probe("trapped", "trim", str(pid))
    # The child that Ctrl-C ends: what a handler has left on the stack is half overwritten.
    os.write(fd, b"sleep 1000\n")
    while not any(open(f"/proc/{child}/comm").read() == "sleep\n" for child in
                  open(f"/proc/{pid}/task/{pid}/children").read().split()):
        time.sleep(0.01)
    good &= probe("waiting", "trim", str(pid))
    good &= probe("waiting", "allocs", str(pid), "-d", "1")
    os.write(fd, b"\x03")
    wait_for(fd, PROMPT)
    good &= probe("interrupted", "trim", str(pid))
    good &= probe("interrupted", "allocs", str(pid), "-d", "1")
    os.write(fd, b"echo ali''ve; exit\n")
    wait_for(fd, b"alive")
    return 0 if good else 1


sys.exit(main())
