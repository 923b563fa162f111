#!/usr/bin/env python3
"""What an idle master costs: context switches, CPU, memory.

Starts the release binary with N workers of the demo server, waits until all are ready and for
SETTLE seconds more, then watches it for WATCH seconds without, and again with CONNS connections
made to the workers meanwhile. Prints one line a figure; exits 1 if one is over its limit.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(ROOT, "target/release/minicluster")
HELLO = os.path.join(ROOT, "target/demo/hello")


def switches(pid):
    with open(f"/proc/{pid}/status") as f:
        fields = dict(line.split(":", 1) for line in f if ":" in line)
    return int(fields["voluntary_ctxt_switches"]) + int(fields["nonvoluntary_ctxt_switches"])


def memory(pid):
    """RSS, PSS and anonymous memory in KiB."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        fields = dict(line.split(":", 1) for line in f if ":" in line)
    return tuple(int(fields[k].split()[0]) for k in ("Rss", "Pss", "Anonymous"))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Cluster:
    def __init__(self, workers):
        self.port = free_port()
        self.name = f"idle-{os.getpid()}-{workers}"
        cmd = [BIN, "-n", str(workers), "-p", str(self.port), "--name", self.name,
               "--log-format", "json", "--", HELLO]
        self.process = subprocess.Popen(cmd, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if line.startswith("{") and json.loads(line)["event"] == "all-ready":
                break
        self.pid = self.process.pid

    def connections(self, count):
        for _ in range(count):
            with socket.create_connection(("127.0.0.1", self.port)) as s:
                s.sendall(b"GET / HTTP/1.0\r\n\r\n")
                while s.recv(4096):
                    pass

    def stop(self):
        # The clock of a stop runs in here, so the answer is the figure.
        begin = time.monotonic()
        code = subprocess.call([BIN, "--name", self.name, "stop"], stdout=subprocess.DEVNULL)
        took = time.monotonic() - begin
        rest = self.process.stderr.read()
        return code or self.process.wait(), took, rest


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--settle", type=float, default=5)
    p.add_argument("--watch", type=float, default=60)
    p.add_argument("--conns", type=int, default=1000)
    p.add_argument("--many", type=int, default=256)
    a = p.parse_args()
    bad = []

    def figure(what, value, limit, unit=""):
        ok = value <= limit
        print(f"{what:<58} {value:>9.2f}{unit} (limit {limit}{unit})" + ("" if ok else "  OVER"))
        if not ok:
            bad.append(what)

    four = Cluster(4)
    time.sleep(a.settle)
    rss, pss, anon = memory(four.pid)
    begin = switches(four.pid)
    time.sleep(a.watch)
    figure(f"context switches, idle {a.watch:g} s, 4 workers", switches(four.pid) - begin, 0)
    begin = switches(four.pid)
    four.connections(a.conns)
    figure(f"context switches, {a.conns} connections made", switches(four.pid) - begin, 0)
    figure("RSS, 4 workers", rss / 1024, 2.5, " MiB")
    code, took, rest = four.stop()
    figure("exit code of stop, 4 workers", code, 0)

    begin = time.monotonic()
    many = Cluster(a.many)
    print(f"{a.many} workers all ready after {time.monotonic() - begin:.2f} s")
    time.sleep(a.settle)
    rss_many, pss_many, anon_many = memory(many.pid)
    # Not PSS: how much of the program's text is in memory says nothing of the workers. (The last events are in it,
    # which are as many with 64 workers as with 1000.)
    figure("own memory per further worker", (anon_many - anon) / (a.many - 4), 2.5, " KiB")
    print(f"RSS {rss} -> {rss_many} KiB, PSS {pss} -> {pss_many} KiB, own {anon} -> {anon_many} KiB")
    code, took, rest = many.stop()
    figure(f"exit code of stop, {a.many} workers", code, 0)
    warned = [l for l in rest.splitlines() if '"level":"warn"' in l or '"level":"error"' in l]
    figure(f"warnings while {a.many} workers stopped ({took:.2f} s)", len(warned), 0)
    for line in warned[:3]:
        print("  " + line)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
