#!/usr/bin/env python3
"""What serving under minicluster costs: the same C server bare and under it, request by request.

Bare: N processes that share one listening socket, as any pre-forking server does. Ours: N workers of
`minicluster -n N`. Both stand ready all the time; the clients (tests/servers/load.c) turn to one, the
other, the other, the one, so that what the machine does meanwhile falls on both. Of each pair: the
requests per second, and the CPU time (user and system) of the server's processes per request. Medians of
the ratios ours / bare, and between which two values the middle half of them lies. Exits 1 if the CPU
time is worse by more than LIMIT in three quarters of the pairs; the requests per second say as much of
the machine as of us.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys

import managers
from reload import LOAD

TICK = os.sysconf("SC_CLK_TCK")
THREADED = os.path.join(managers.BUILT, "threaded")


class Bare:
    """Processes that share a listener of ours."""

    def __init__(self, workers):
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = listener.getsockname()[1]
        env = dict(os.environ, SERVER_STARTER_PORT=f"{self.port}={listener.fileno()}")
        words = ["sh", "-c", managers.ADOPT, "sh", THREADED, "--no-listen-adopt"]
        self.processes = [
            subprocess.Popen(words, env=env, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL)
            for _ in range(workers)
        ]
        listener.close()
        managers.until("the bare server answers", lambda: managers.answers(self.port))

    def pids(self):
        return [p.pid for p in self.processes]

    def stop(self):
        for p in self.processes:
            p.terminate()
        for p in self.processes:
            p.wait()


class Ours(managers.Minicluster):
    """The same program, which binds by itself."""

    def command(self):
        return [managers.BIN, "-n", str(self.workers), "-p", str(self.port), "-C", self.socket,
                "--log-format", "json", "--", THREADED, "--epoll", "--backlog", "1024"]

    def pids(self):
        return managers.children(self.pid())


def cpu_seconds(pids):
    """User and system time of all threads that there are and were."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def measure(side, words):
    """Requests per second, and CPU time in us per request."""
    before = cpu_seconds(side.pids())
    said = subprocess.run([LOAD, str(side.port), *words.split()], capture_output=True, text=True)
    used = cpu_seconds(side.pids()) - before
    if said.returncode != 0:
        sys.exit(f"throughput: the clients lost requests: {said.stdout}{said.stderr}")
    counts = dict(word.split("=") for word in said.stdout.split())
    requests = int(counts["requests"])
    return requests, used * 1e6 / requests


def spread(ratios):
    """Where the middle half begins, and the words for it and the median."""
    low, mid, high = statistics.quantiles(ratios, n=4)
    return low, f"{mid:.3f} [{low:.3f}, {high:.3f}]"


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--pairs", type=int, default=11)
    p.add_argument("--seconds", type=float, default=1)
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--clients", type=int, default=16)
    p.add_argument("--limit", type=float, default=0.1)
    a = p.parse_args()
    bare, ours = Bare(a.workers), Ours("cooperating", "fresh")
    bad = False
    try:
        ours.start(managers.free_port(), a.workers)
        for mode in ("fresh", "keepalive"):
            words = f"mode={mode} secs={a.seconds} clients={a.clients}"
            rows = []
            for n in range(a.pairs):
                if n % 2:
                    mine = measure(ours, words)
                    base = measure(bare, words)
                else:
                    base = measure(bare, words)
                    mine = measure(ours, words)
                rows.append((mine, base))
            _, rates = spread([m[0] / b[0] for m, b in rows])
            low, cpus = spread([m[1] / b[1] for m, b in rows])
            over = low > 1 + a.limit
            bad |= over
            ours_us = statistics.median(m[1] for m, _ in rows)
            bare_us = statistics.median(b[1] for _, b in rows)
            per_second = statistics.median(m[0] for m, _ in rows) / a.seconds
            print(f"SUMMARY serving, {mode:<9} ours / bare: CPU per request {cpus}, requests/s {rates} "
                  f"({ours_us:.2f} and {bare_us:.2f} us, {per_second:.0f}/s, {a.pairs} pairs)"
                  + ("  OVER" if over else ""), flush=True)
    finally:
        ours.stop()
        bare.stop()
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
