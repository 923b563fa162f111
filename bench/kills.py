#!/usr/bin/env python3
"""SIGKILLs of random workers under load: is any connection refused, and does the cluster recover?

Clients open a connection per request as fast as they can. A connection that a worker had accepted
when it was killed is lost with it, whatever the manager does; counted apart. Exits 1 if one
connection was refused or the cluster was not back to N within 20 s of a kill.
"""

import argparse
import collections
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

from idle import BIN, HELLO, free_port


class Client(threading.Thread):
    def __init__(self, port):
        super().__init__(daemon=True)
        self.port = port
        self.counts = collections.Counter()
        self.stop = False

    def run(self):
        import socket
        while not self.stop:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as s:
                    s.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    data = s.recv(4096)
                self.counts["answered" if data.startswith(b"HTTP/1.") else "lost with the worker"] += 1
            except ConnectionRefusedError:
                self.counts["REFUSED"] += 1
            except (ConnectionResetError, BrokenPipeError):
                self.counts["lost with the worker"] += 1
            except TimeoutError:
                self.counts["TIMEOUT"] += 1


def status(name):
    out = subprocess.run([BIN, "--name", name, "--json", "status"], capture_output=True, text=True)
    return json.loads(out.stdout)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--kills", type=int, default=100)
    p.add_argument("--clients", type=int, default=8)
    p.add_argument("--workers", type=int, default=4)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("command", nargs="*", default=[HELLO])
    a = p.parse_args()
    rng = random.Random(a.seed)
    port, name = free_port(), f"kills-{os.getpid()}"
    master = subprocess.Popen(
        [BIN, "-n", str(a.workers), "-p", str(port), "--name", name, "--respawn", "1ms",
         "--backoff", "200ms", "--log-format", "json", "--"] + a.command,
        stderr=subprocess.PIPE, text=True)
    for line in master.stderr:
        if line.startswith("{") and json.loads(line)["event"] == "all-ready":
            break
    threading.Thread(target=lambda: collections.deque(master.stderr, 0), daemon=True).start()
    clients = [Client(port) for _ in range(a.clients)]
    for c in clients:
        c.start()
    bad, slowest = 0, 0.0
    for _ in range(a.kills):
        pids = [s["pid"] for s in status(name)["slots"] if s["pid"]]
        begin = time.monotonic()
        os.kill(rng.choice(pids), signal.SIGKILL)
        # Back to N: all ready, and one restart more than before.
        while True:
            s = status(name)
            if s["ready"] == s["wanted"] or time.monotonic() - begin > 20:
                break
        slowest = max(slowest, time.monotonic() - begin)
        bad += time.monotonic() - begin > 20
    restarts = sum(s["restarts"] for s in status(name)["slots"])
    for c in clients:
        c.stop = True
    for c in clients:
        c.join()
    code = subprocess.call([BIN, "--name", name, "stop"], stdout=subprocess.DEVNULL)
    counts = sum((c.counts for c in clients), collections.Counter())
    print(f"{a.kills} kills, {restarts} restarts, slowest recovery {slowest * 1000:.0f} ms, "
          f"stop {code}: {dict(counts)}")
    failed = bad or code or counts["REFUSED"] or counts["TIMEOUT"] or restarts != a.kills
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
