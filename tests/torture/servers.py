"""Real servers under load, whose answers are checked all the time by a thread of ours."""
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from look import PATIENCE, children_of, lives, text_of, wait_for

os.environ["PATH"] += ":/usr/sbin:/sbin"


def find_program(name):
    """Where it is installed; None: nowhere."""
    if name in ("postgres", "initdb", "pgbench"):
        for folder in sorted(os.listdir("/usr/lib/postgresql"), reverse=True) if os.path.isdir(
                "/usr/lib/postgresql") else []:
            path = f"/usr/lib/postgresql/{folder}/bin/{name}"
            if os.path.exists(path):
                return path
    return shutil.which(name)


def unprivileged():
    """For servers that refuse to be root's."""
    return (["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
            if os.geteuid() == 0 else [])


class Server:
    """A real server; PID is the process to be looked at, PROCESS the one that was started."""
    needs = ()
    varies, threads_vary, is_continued, kind = False, False, True, None
    loads = ()  # commands that put it under load, again and again

    def __init__(self, folder=None):
        self.name = type(self).__name__.lower()
        self.text, self.arguments, self.lines = f"{self.name} under load", [], []
        self.owns_folder = folder is None
        self.folder = folder or tempfile.mkdtemp()
        os.chmod(self.folder, 0o777)
        self.socket = f"{self.folder}/socket"
        self.ending, self.answers = threading.Event(), 0
        self.process = self.start(self.command())
        self.pid = self.process.pid
        self.work = []

    @classmethod
    def is_installed(cls):
        return all(find_program(name) for name in cls.needs)

    def start(self, command, **options):
        return subprocess.Popen([find_program(command[0]), *command[1:]], cwd=self.folder,
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL, **options)

    def begin(self):
        """Until it answers, and is under load; false: it does not get there."""
        if not wait_for(self.is_up, 100, 0.1):
            return False
        self.work = [threading.Thread(target=self.ask)]
        self.work += [threading.Thread(target=self.load, args=(load,)) for load in self.loads]
        for thread in self.work:
            thread.start()
        return self.works() is None and self.find_pid()

    def find_pid(self):
        return True

    def is_up(self):
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(self.socket) == 0

    def ask(self):
        try:
            self.exchange_all()
        except (OSError, subprocess.SubprocessError) as problem:
            if not self.ending.is_set():
                self.lines.append(f"WRONG answer: {problem}")

    def exchange_all(self):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(self.socket)
            while not self.ending.is_set():
                self.exchange(connection)
                self.answers += 1
                time.sleep(0.001)

    def exchange(self, connection):
        expected, got = self.question(connection, self.answers), b""
        while len(got) < len(expected):
            part = connection.recv(65536)
            if not part:
                raise OSError("it has closed the connection")
            got += part
        if got != expected:
            raise OSError(f"{got[:80]} instead of {expected[:80]}")

    def load(self, command):
        words = [word.format(socket=self.socket, folder=self.folder) for word in command]
        while not self.ending.is_set():
            process = subprocess.Popen([find_program(words[0]), *words[1:]],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.PIPE, text=True)
            said, ended = [], threading.Thread(target=lambda: said.append(process.stderr.read()))
            ended.start()
            while process.poll() is None and not self.ending.wait(0.05):
                pass
            if process.poll() is None:
                process.kill()
            process.wait()
            ended.join()
            if process.returncode and not self.ending.is_set():
                self.lines.append(f"WRONG {words[0]}: {said[0][-300:]}")
                return

    def lives(self):
        return self.process.poll() is None and lives(self.pid)

    def read(self, _):
        pass

    def works(self):
        before = self.answers
        if not wait_for(lambda: self.answers > before + 3 or self.lines):
            return "it does not answer"
        return self.lines[0] if self.lines else None

    def own_children(self):
        return children_of(self.pid)

    def squeeze(self, _):
        return False

    def report(self):
        return []

    def stop(self):
        self.process.kill()

    def end(self):
        self.ending.set()
        for thread in self.work:
            thread.join()
        self.stop()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.owns_folder:
            shutil.rmtree(self.folder, ignore_errors=True)


class Redis(Server):
    needs = ("redis-server", "redis-benchmark")
    loads = ("redis-benchmark -s {socket} -q -t set,get,lpush -r 1000 -d 200 -c 4 -n 20000".split(),)

    def command(self):
        return ["redis-server", "--port", "0", "--save", "", "--unixsocket", self.socket]

    def question(self, connection, number):
        value = f"value-{number}".encode() * (number % 50 + 1)
        connection.sendall(b"SET ours:%d %s\r\nGET ours:%d\r\n" %
                           (number % 1000, value, number % 1000))
        return b"+OK\r\n$%d\r\n%s\r\n" % (len(value), value)


class Memcached(Server):
    needs = ("memcached",)

    def command(self):
        return ["memcached", "-U", "0", "-s", self.socket, "-u", "root"]

    def question(self, connection, number):
        value = f"value-{number}".encode() * (number % 50 + 1)
        connection.sendall(b"set key%d 0 0 %d\r\n%s\r\n" % (number % 1000, len(value), value))
        return b"STORED\r\n"


class Python3(Server):
    needs = ("python3",)
    PROGRAM = """
import socketserver, sys
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            kept.append(line)
            del kept[:-1000]
            self.wfile.write(line)
kept = []
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
Server(sys.argv[1], Echo).serve_forever()
"""

    def command(self):
        return ["python3", "-c", self.PROGRAM, self.socket]

    def question(self, connection, number):
        line = b"%d " % number * (number % 50 + 1) + b"\n"
        connection.sendall(line)
        return line


class Nginx(Server):
    """Its worker."""
    needs = ("nginx", "curl")
    loads = ("curl -sf --unix-socket {socket} http://test/canary?[1-20000] -o /dev/null".split(),)
    CONFIGURATION = """
daemon off; worker_processes 1; pid {0}/pid; error_log {0}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off; keepalive_requests 1000000000; client_body_temp_path {0}/body;
    proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/fastcgi; uwsgi_temp_path {0}/uwsgi;
    scgi_temp_path {0}/scgi;
    server {{ listen unix:{0}/socket; root {0}; location /ours {{ return 200 "canary"; }} }}
}}
"""

    def command(self):
        with open(f"{self.folder}/nginx.conf", "w", encoding="ascii") as file:
            file.write(self.CONFIGURATION.format(self.folder))
        with open(f"{self.folder}/canary", "w", encoding="ascii") as file:
            file.write("canary" * 100)
        return ["nginx", "-c", f"{self.folder}/nginx.conf", "-e", f"{self.folder}/error.log"]

    def find_pid(self):
        workers = sorted(children_of(self.process.pid))
        self.pid = int(workers[0]) if workers else 0
        return bool(workers)

    def exchange(self, connection):
        connection.sendall(b"GET /ours HTTP/1.1\r\nHost: test\r\n\r\n")
        got = b""
        while not got.endswith(b"\r\n\r\ncanary"):
            part = connection.recv(65536)
            if not part or len(got) > 4096:
                raise OSError(f"{got[-80:]} is no answer")
            got += part
        if not got.startswith(b"HTTP/1.1 200 OK\r\n"):
            raise OSError(f"{got[:80]}")

    def stop(self):
        self.process.terminate()


def run_quietly(*command):
    return subprocess.run([find_program(command[0]), *command[1:]], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=PATIENCE, check=False)


class Database(Server):
    """Made once for all, in FOLDER."""
    threads_vary = True

    def is_up(self):
        return self.ask_for("select 1") == "1"

    def exchange_all(self):
        self.ask_for("create table canary (n int)")
        self.ask_for("delete from canary")
        self.ask_for("insert into canary values (4711)")
        while not self.ending.is_set():
            answer = self.ask_for("select n from canary")
            if answer != "4711":
                raise OSError(answer)
            self.answers += 1
            self.ending.wait(0.05)


class Mariadbd(Database):
    needs = ("mariadbd", "mariadb-install-db", "mariadb-slap", "mariadb")
    loads = ("mariadb-slap --no-defaults -u root -S {socket} --concurrency=3 --auto-generate-sql "
             "--number-of-queries=1000".split(),)

    def command(self):
        user = ["--user=root"] if os.geteuid() == 0 else []
        data = f"--datadir={self.folder}/data"
        if not os.path.exists(f"{self.folder}/data"):
            run_quietly("mariadb-install-db", "--no-defaults", data, "--skip-test-db",
                        "--auth-root-authentication-method=normal", *user)
        return ["mariadbd", "--no-defaults", data, f"--socket={self.socket}", "--skip-networking",
                "--innodb-buffer-pool-size=32M", *user]

    def ask_for(self, query):
        return run_quietly("mariadb", "--no-defaults", "-u", "root", "-S", self.socket, "-N", "-B",
                           "-e", f"create database if not exists test; use test; {query}"
                           ).stdout.strip()

    def stop(self):
        self.process.terminate()


class Postgres(Database):
    """The server, one of its own processes, or one that serves a client."""
    needs = ("postgres", "initdb", "pgbench", "psql")
    loads = ("pgbench -h {folder} -U tester -n -c 2 -T 1000000 postgres".split(),)

    def command(self):
        data = f"{self.folder}/data"
        user = unprivileged()
        if not os.path.exists(data):
            run_quietly(*user, find_program("initdb"), "-D", data, "-U", "tester", "-A", "trust",
                        "--no-sync")
        return [*user, find_program("postgres"), "-D", data, "-k", self.folder, "-c",
                "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=8MB"]

    def is_up(self):
        return super().is_up() and (
            self.ask_for("select count(*) from pgbench_branches") == "1" or
            not run_quietly("pgbench", "-h", self.folder, "-U", "tester", "-i", "-q",
                            "postgres").returncode)

    def ask_for(self, query):
        return run_quietly("psql", "-h", self.folder, "-U", "tester", "-d", "postgres", "-At", "-q",
                           "-c", query).stdout.strip()

    def find_pid(self):
        def serving():
            return [int(pid) for pid in children_of(self.process.pid)
                    if "tester postgres [local]" in text_of(f"/proc/{pid}/cmdline")]

        def kept():
            # Those of our own questions are gone at once.
            first = set(serving())
            time.sleep(1)
            return sorted(first.intersection(serving()))

        if not wait_for(kept, 60):
            return False
        self.pid = random.choice([self.process.pid, *kept()])
        self.text += ": the server" if self.pid == self.process.pid else ": a session"
        self.varies = self.pid == self.process.pid
        return True

    def stop(self):
        self.process.send_signal(signal.SIGINT)


SERVERS = {cls.__name__.lower(): cls
           for cls in (Redis, Memcached, Python3, Nginx, Mariadbd, Postgres)}
