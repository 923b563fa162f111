"""Who reloads servers, each behind the same four verbs: minicluster, what people use instead, and nobody.

A manager is given a server of a kind it can run ("cooperating", "node", "python", or its "own") and a
port, and is asked to reload it. What each needs to be told stands here and nowhere else. $MINICLUSTER is
another binary to measure than the one that was built here.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.environ.get("MINICLUSTER", os.path.join(ROOT, "target/release/minicluster"))
BUILT = os.path.join(ROOT, "target/bench")
SERVERS = os.path.join(ROOT, "tests/servers")
PM2 = os.path.join(BUILT, "pm2/node_modules/.bin/pm2")
CLUSTERS = os.path.join(ROOT, "target/seeds/node_modules")
# Not on the path of everybody.
NGINX_BIN = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
PATIENCE = 60

# A server that has sockets passed to it, by whichever name; threaded.c knows one of them.
ADOPT = (
    'fd=${SERVER_STARTER_PORT##*=}; exec 3<&$fd; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
)

# What gunicorn runs: the answers of selecting.js.
APP = '''
import os, time
from urllib.parse import parse_qs

def app(environ, start_response):
    query = parse_qs(environ.get("QUERY_STRING", ""))
    ms = int(query.get("ms", ["0"])[0])
    who = f"PID {os.getpid()} SLOT -\\n".encode()
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", [])
        return lines(who, int(query["n"][0]), ms)
    time.sleep(ms / 1000)
    start_response("200 OK", [("Content-Length", str(len(who)))])
    return [who]

def lines(who, n, ms):
    yield who
    for i in range(n):
        yield b"line\\n"
        time.sleep(ms / 1000)
'''

NGINX_CONF = """
daemon off; pid {scratch}/nginx.pid; error_log stderr crit; worker_processes {workers};
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 1000000;
    client_body_temp_path {scratch}/b; proxy_temp_path {scratch}/p; fastcgi_temp_path {scratch}/f;
    uwsgi_temp_path {scratch}/u; scgi_temp_path {scratch}/s;
    server {{ listen {port} backlog=1024; location / {{ return 200 "PID $pid SLOT -\\n"; }} }}
}}
"""


class Failed(Exception):
    """A manager did not do what it was asked."""


def free_port():
    """One that nobody has now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def server(kind, load):
    """The command of a server of this kind, which listens on $PORT."""
    if kind == "cooperating":
        return [os.path.join(BUILT, "threaded"), "--polite", "2000", "--backlog", "1024"]
    if kind == "node":
        return [shutil.which("node"), os.path.join(SERVERS, "selecting.js")]
    words = [sys.executable, os.path.join(SERVERS, "blocking.py"), "backlog=1024"]
    if load.startswith("keep"):
        words += ["keepalive=1", "threads=1"]
    if load.startswith("slow"):
        words += ["handler=300"]
    return words


def answers(port):
    """Is somebody there?"""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return s.recv(64).startswith(b"HTTP/1.")
    except OSError:
        return False


def until(what, so):
    """Looks until it is so."""
    end = time.monotonic() + PATIENCE
    while not so():
        if time.monotonic() > end:
            raise Failed(f"waited {PATIENCE} s in vain until {what}")
        time.sleep(0.005)


def children(pid):
    """Of this process, alive."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            return {int(word) for word in f.read().split()}
    except OSError:
        return set()


class Manager:
    """One that is started as a child of ours, has its workers as children and reloads on a signal."""

    name = "?"
    kinds = ("own",)
    loads = ("fresh", "keep 0", "keep 50", "keep 500", "slow")
    reload_signal = signal.SIGHUP

    def __init__(self, kind, load):
        self.kind, self.load = kind, load
        self.scratch = tempfile.mkdtemp(prefix="mcb-")
        self.process = None
        self.port = self.workers = 0

    @staticmethod
    def can():
        """Why it cannot be measured here, or None."""
        return None

    def command(self):
        """What is started."""
        raise NotImplementedError

    def environment(self):
        """Of what is started."""
        return dict(os.environ, PORT=str(self.port))

    def start(self, port, workers):
        """Returns when all serve."""
        self.port, self.workers = port, workers
        self.process = subprocess.Popen(
            self.command(), env=self.environment(), cwd=self.scratch,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until("all have started", lambda: answers(port) and self.ready() >= self.workers)

    def pid(self):
        """Of the manager."""
        return self.process.pid

    def ready(self):
        """How many workers there are; who only looks from outside cannot know more."""
        return len(children(self.pid()))

    def reload(self):
        """Returns when all workers are new ones."""
        before = children(self.pid())
        os.kill(self.pid(), self.reload_signal)
        until("all workers are new", lambda: not before & children(self.pid())
              and self.ready() >= self.workers)

    def memory(self):
        """RSS of the manager in KiB, without its workers."""
        with open(f"/proc/{self.pid()}/status") as f:
            fields = dict(line.split(":", 1) for line in f if ":" in line)
        return int(fields["VmRSS"].split()[0])

    def stop(self):
        """Ends it and all of its workers."""
        if self.process and self.process.poll() is None:
            # A worker that holds out is ours to end, and so is remembered.
            left = children(self.pid())
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                for pid in left & children(self.pid()):
                    os.kill(pid, signal.SIGKILL)
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)


class Minicluster(Manager):
    """Ours, as it comes: `minicluster reload` returns when it is over."""

    name = "minicluster"
    kinds = ("cooperating", "node", "python")
    loads = Manager.loads + ("stream",)

    def __init__(self, kind, load):
        super().__init__(kind, load)
        self.socket = os.path.join(self.scratch, "c")
        self.tail = []

    @staticmethod
    def can():
        said = subprocess.run([BIN, "help", "reload"], capture_output=True, text=True)
        return None if said.returncode == 0 else "this binary knows no reload"

    def command(self):
        drain = ["--drain", "server"] if self.kind == "cooperating" else []
        # Nobody else watches new workers before the old ones go: what is compared is the exchange.
        return [BIN, "-n", str(self.workers), "-p", str(self.port), "-C", self.socket, "--canary", "0",
                *drain, "--log-format", "json", "--", *server(self.kind, self.load)]

    def start(self, port, workers):
        self.port, self.workers = port, workers
        self.process = subprocess.Popen(self.command(), cwd=self.scratch, stderr=subprocess.PIPE,
                                        stdin=subprocess.DEVNULL, text=True)
        for line in self.process.stderr:
            self.tail.append(line)
            if line.startswith("{") and json.loads(line)["event"] == "all-ready":
                threading.Thread(target=self.follow, daemon=True).start()
                return
        raise Failed("it ended: " + "".join(self.tail[-3:]))

    def follow(self):
        """Keeps the last of what it says."""
        for line in self.process.stderr:
            self.tail = self.tail[-20:] + [line]

    def ready(self):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(self.socket)
            s.sendall(b'["status","--json"]\n')
            with s.makefile() as answer:
                return json.loads(json.loads(answer.readline())["out"])["ready"]

    def reload(self):
        said = subprocess.run([BIN, "-C", self.socket, "reload"], capture_output=True, text=True,
                              timeout=PATIENCE * 2)
        if said.returncode != 0:
            raise Failed(f"reload exits {said.returncode}: {said.stdout}{said.stderr}")


class StartServer(Manager):
    """Server::Starter: one worker, which is passed the socket; SIGHUP starts another one beside it."""

    name = "start_server"
    kinds = ("cooperating",)

    @staticmethod
    def can():
        return None if shutil.which("start_server") else "start_server is not installed"

    def command(self):
        self.workers = 1
        words = server("cooperating", self.load) + ["--no-listen-adopt"]
        return ["start_server", f"--port=127.0.0.1:{self.port}", "--backlog=1024", "--",
                "sh", "-c", ADOPT, "sh", *words]


class Gunicorn(Manager):
    """Its own workers, with threads."""

    name = "gunicorn"
    loads = Manager.loads + ("stream",)

    @staticmethod
    def can():
        return None if shutil.which("gunicorn") else "gunicorn is not installed"

    def command(self):
        with open(os.path.join(self.scratch, "app.py"), "w") as f:
            f.write(APP)
        return ["gunicorn", "-w", str(self.workers), "-k", "gthread", "--threads", "8", "--backlog", "1024",
                "--keep-alive", "5", "-b", f"127.0.0.1:{self.port}", "app:app"]


class Nginx(Manager):
    """A server that is its own manager."""

    name = "nginx"
    loads = ("fresh", "keep 0", "keep 50", "keep 500")

    @staticmethod
    def can():
        return None if NGINX_BIN else "nginx is not installed"

    def command(self):
        conf = os.path.join(self.scratch, "nginx.conf")
        with open(conf, "w") as f:
            f.write(NGINX_CONF.format(scratch=self.scratch, workers=self.workers, port=self.port))
        return [NGINX_BIN, "-p", self.scratch, "-c", conf]


class Pm2(Manager):
    """Node's cluster mode; the daemon has a home of its own, and ends with it."""

    name = "pm2"
    kinds = ("node",)
    loads = Manager.loads + ("stream",)

    @staticmethod
    def can():
        return None if os.path.exists(PM2) else "pm2 is not installed"

    def environment(self):
        return dict(super().environment(), PM2_HOME=self.scratch, PM2_DISCRETE_MODE="true")

    def pm2(self, *words):
        """Runs it to its end."""
        said = subprocess.run([PM2, *words], env=self.environment(), cwd=self.scratch, timeout=PATIENCE,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if said.returncode != 0:
            raise Failed(f"pm2 {words[0]} exits {said.returncode}: {said.stdout[-300:]}")

    def start(self, port, workers):
        self.port, self.workers = port, workers
        self.pm2("start", os.path.join(SERVERS, "selecting.js"), "-i", str(workers), "--name", "bench")
        until("all have started", lambda: answers(port) and self.ready() >= workers)

    def pid(self):
        with open(os.path.join(self.scratch, "pm2.pid")) as f:
            return int(f.read())

    def reload(self):
        self.pm2("reload", "bench")

    def stop(self):
        try:
            self.pm2("kill")
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)


class NodeCluster(Manager):
    """A module over Node's cluster, which a program of one's own starts and asks to restart its workers."""

    kinds = ("node",)
    loads = Manager.loads + ("stream",)
    # Each as its README has it; SIGUSR2 is what we ask by.
    program = "?"
    reload_signal = signal.SIGUSR2

    @classmethod
    def can(cls):
        return None if os.path.exists(os.path.join(CLUSTERS, cls.name)) else f"{cls.name} is not installed"

    def command(self):
        program = self.program.replace("MODULE", json.dumps(os.path.join(CLUSTERS, self.name)))
        program = program.replace("WORKER", json.dumps(os.path.join(SERVERS, "selecting.js")))
        master = os.path.join(self.scratch, "master.js")
        with open(master, "w") as f:
            f.write(program.replace("COUNT", str(self.workers)).replace("FREE", str(free_port())))
        return [shutil.which("node"), master]


class Recluster(NodeCluster):
    name = "recluster"
    program = """
        const cluster = require(MODULE)(WORKER, { workers: COUNT })
        cluster.run()
        process.on('SIGUSR2', () => cluster.reload())
    """


class ClusterMaster(NodeCluster):
    """(Its own SIGHUP ends it at the first restart, with Node 20.)"""

    name = "cluster-master"
    program = """
        const master = require(MODULE)
        master({ exec: WORKER, size: COUNT, repl: false })
        process.on('SIGUSR2', () => master.restart())
    """


class ClusterService(NodeCluster):
    """(A restart is asked for when it says that it has started, and again if it refuses, and has our limit of 10 s.)"""

    name = "cluster-service"
    program = """
        const service = require(MODULE)
        const workers = { one: { worker: WORKER, count: COUNT } }
        const started = new Promise(done => service.start({ workers, accessKey: '1', cli: false, port: FREE }, done))
        const again = error => error && setTimeout(restart, 50)
        const restart = () => service.trigger('restart', again, 'all', { timeout: 10000 })
        process.on('SIGUSR2', () => started.then(restart))
    """


class Nobody(Manager):
    """One server without a manager, stopped and started: what all of this is about."""

    name = "nobody"
    kinds = ("cooperating", "node", "python")
    loads = ("fresh", "keep 50")

    def command(self):
        self.workers = 1
        return server(self.kind, self.load)

    def ready(self):
        return int(self.process.poll() is None)

    def reload(self):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.start(self.port, 1)

    def memory(self):
        return 0


ALL = [Minicluster, StartServer, Gunicorn, Nginx, Pm2, Recluster, ClusterMaster, ClusterService, Nobody]
# What a user might take as well, and why it is not measured.
LEFT_OUT = {
    "einhorn": "neither Debian nor npm nor PyPI has a package of it",
    "cluster2": "its package does not build with Node 20",
    "proteus-cluster": "npm has no package of it",
}
