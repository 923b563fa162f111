#!/usr/bin/env python3
"""How fast a dead worker is replaced, and how fast a cluster starts, beside the bare thing.

Respawn: SIGKILL of a worker to the first instruction of its replacement's main, under minicluster
and under a manager of ten lines of C that only waits, forks and executes. Start: exec to the first
answer of the demo server, under minicluster and bare. All in turn, A B A B; medians, their difference
in milliseconds and their ratio. Exits 1 if a ratio is over its limit: milliseconds are the machine's.
"""

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(ROOT, "target/release/minicluster")
HELLO = os.path.join(ROOT, "target/demo/hello")
STAMP = os.path.join(ROOT, "target/bench/stamp")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Stamped:
    """A manager with one stamping worker."""

    def __init__(self, command, file, env=None):
        self.file = file
        self.seen = 0
        self.process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
        self.pid, _ = self.next()

    def next(self):
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with open(self.file) as f:
                lines = [l for l in f if l.endswith("\n")]
            if len(lines) > self.seen:
                self.seen = len(lines)
                pid, at = lines[-1].split()
                return int(pid), int(at)
            time.sleep(0.001)
        sys.exit("no new worker within 10 s")

    def respawn_ms(self):
        # Settled: the machine has done with the last one.
        time.sleep(0.02)
        begin = time.monotonic_ns()
        os.kill(self.pid, signal.SIGKILL)
        self.pid, at = self.next()
        return (at - begin) / 1e6

    def end(self):
        self.process.terminate()
        self.process.wait()


def respawns(runs, scratch):
    files = [os.path.join(scratch, n) for n in ("ours", "bare")]
    for f in files:
        open(f, "w").close()
    ours = Stamped(
        [BIN, "-n", "1", "-p", str(free_port()), "--respawn", "0", "--backoff", "0", "-C", "off",
         "--", STAMP, files[0]], files[0])
    bare = Stamped([STAMP, files[1], "bare"], files[1])
    a, b = [], []
    for _ in range(runs):
        a.append(ours.respawn_ms())
        b.append(bare.respawn_ms())
    ours.end()
    bare.end()
    return a, b


def first_answer_ms(command, port):
    env = dict(os.environ, PORT=str(port))
    begin = time.monotonic_ns()
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
                    s.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    if s.recv(64).startswith(b"HTTP/1."):
                        return (time.monotonic_ns() - begin) / 1e6
            except ConnectionRefusedError:
                # Not spinning: on two cores that would take one from who is being measured.
                time.sleep(0.0001)
    finally:
        process.terminate()
        process.wait()


def starts(runs):
    a, b = [], []
    for _ in range(runs):
        port = free_port()
        a.append(first_answer_ms([BIN, "-n", "4", "-p", str(port), "-C", "off", "--", HELLO], port))
        port = free_port()
        b.append(first_answer_ms([HELLO], port))
    return a, b


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--runs", type=int, default=51)
    a = p.parse_args()
    bad = False
    with tempfile.TemporaryDirectory() as scratch:
        rows = [("respawn, SIGKILL to main", respawns(a.runs, scratch), 2.0),
                ("start of 4, exec to first answer", starts(a.runs), 4.0)]
    for what, (ours, bare), limit in rows:
        mine, base = statistics.median(ours), statistics.median(bare)
        over = mine / base > limit
        bad |= over
        print(f"{what:<34} minicluster {mine:.2f} ms [{min(ours):.2f}, {max(ours):.2f}]  "
              f"bare {base:.2f} ms [{min(bare):.2f}, {max(bare):.2f}]  "
              f"difference {mine - base:.2f} ms, ratio {mine / base:.2f} (limit {limit})"
              + ("  OVER" if over else ""))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
