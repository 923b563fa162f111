#!/usr/bin/env python3
"""What reloads lose under load: minicluster beside what people use instead.

Each row is a manager, a server it can run and a load: clients that hammer (tests/servers/load.c) while
the manager reloads, again and again. `failed` is what no client may retry: refused, no connection,
the first request of a connection without its answer, half an answer, no answer within 10 s. `retried`
is what HTTP allows: a kept connection that ended under a request. A row ends after RELOADS reloads or
when its time is over, whichever comes first, but never before two; those of others have half the time,
since what they lose they lose soon. Exits 1 if minicluster lost a request or a reload.
"""

import argparse
import signal
import statistics
import subprocess
import sys
import threading
import time

import managers

LOAD = managers.os.path.join(managers.BUILT, "load")
GAP = 0.25
FAILURES = ("status", "refused", "connect", "fresh", "half", "timeout")
LOADS = {
    "fresh": "mode=fresh",
    "keep 0": "mode=keepalive",
    "keep 50": "mode=keepalive pause=50",
    "keep 500": "mode=keepalive pause=500",
    "slow": "mode=fresh path=/slow?ms=300",
    "stream": "mode=fresh path=/stream?n=3&ms=100",
}
# Of minicluster alone, in the short mode: one load a server that says most of it.
SHORT = {("cooperating", "fresh"), ("node", "keep 50"), ("python", "fresh")}


class Sum:
    """All rows of a manager."""

    def __init__(self):
        self.rows = self.broken = self.failed = self.requests = self.reused = self.reloads = 0
        # By row: one with many quick reloads says no more than one with two slow ones.
        self.ms, self.memory = [], []

    def line(self, name, ours):
        """Ratios first: to all requests, to the reloads, to what ours takes."""
        if not self.ms:
            return f"{name:<13} no row of {self.rows} came to its end"
        times = lambda mine, theirs: f"{mine / theirs:.2f}" if theirs else "-"
        ms, rss = statistics.median(self.ms), statistics.median(self.memory)
        our_ms = statistics.median(ours.ms) if ours.ms else 0
        our_rss = statistics.median(ours.memory) if ours.memory else 0
        return (f"{name:<13} lost {self.failed / max(1, self.requests) * 1e6:.0f}/1e6 requests, "
                f"{self.failed / self.reloads:.2f} a reload; retried {self.reused / self.reloads:.2f} a reload; "
                f"time x{times(ms, our_ms)}, RSS x{times(rss, our_rss)} of ours "
                f"({self.failed}/{self.requests}, {self.reloads} reloads, {ms:.0f} ms, {rss / 1024:.1f} MiB"
                + (f", {self.broken} of {self.rows} rows FAILED" if self.broken else "") + ")")


class Load:
    """The clients, from when each has had an answer."""

    def __init__(self, port, words):
        self.process = subprocess.Popen([LOAD, str(port), *words.split(), "tell=1"], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for line in self.process.stdout:
            if line == "going\n":
                return
        raise managers.Failed("the clients ended before they had an answer each")

    def finish(self):
        """What they counted."""
        out, _ = self.process.communicate(timeout=60)
        pairs = (word.split("=") for word in out.split("\n")[-2].split())
        return {name: int(number) for name, number in pairs}

    def abandon(self):
        """Ends them, if they have not."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


class Fewest(threading.Thread):
    """Looks how many workers there are."""

    def __init__(self, manager):
        super().__init__(daemon=True)
        self.manager, self.fewest, self.over = manager, manager.workers, threading.Event()

    def run(self):
        while not self.over.wait(0.02):
            try:
                self.fewest = min(self.fewest, self.manager.ready())
            except OSError:
                pass  # it is between two, or busy; the next look tells

    def finish(self):
        """The fewest that were seen."""
        self.over.set()
        self.join()
        return self.fewest


def reloads(manager, load, a):
    """Reloads it under this load; returns how long each took, the counts and the fewest workers."""
    clients = Load(manager.port, f"{LOADS[load]} clients={a.clients}")
    try:
        fewest = Fewest(manager)
        fewest.start()
        ours = isinstance(manager, managers.Minicluster)
        took, end = [], time.monotonic() + (a.seconds if ours else a.seconds / 2)
        while len(took) < a.reloads and (len(took) < 2 or time.monotonic() < end):
            begin = time.monotonic()
            manager.reload()
            took.append(time.monotonic() - begin)
            # The clients reach all workers, and what they hold is old at the next one.
            time.sleep(GAP)
        few = fewest.finish()
        return took, clients.finish(), few
    finally:
        clients.abandon()


def row(kind_of_manager, kind, load, a, total):
    """One row; returns whether all was well."""
    total.rows += 1
    manager = kind_of_manager(kind, load)
    head = f"{manager.name:<13} {kind:<12} {load:<9}"
    try:
        manager.start(managers.free_port(), a.workers)
        took, counts, fewest = reloads(manager, load, a)
        memory = manager.memory()
    except (managers.Failed, OSError, subprocess.TimeoutExpired) as error:
        print(f"{head} FAILED: {error}", flush=True)
        total.broken += 1
        return False
    finally:
        manager.stop()
    failed = sum(counts[name] for name in FAILURES)
    classes = " ".join(f"{name}={counts[name]}" for name in FAILURES if counts[name])
    ms = [t * 1000 for t in took]
    total.failed += failed
    total.requests += counts["requests"]
    total.reused += counts["reused"]
    total.reloads += len(took)
    total.ms.append(statistics.median(ms))
    total.memory.append(memory)
    print(f"{head} {failed / max(1, counts['requests']) * 1e6:>9.0f} {failed / len(took):>8.1f} "
          f"{counts['reused'] / len(took):>8.1f} {statistics.median(ms):>7.0f} [{min(ms):.0f}, {max(ms):.0f}]"
          f"{'':<2}{fewest}/{manager.workers}  {len(took):>3} {memory / 1024:>6.1f}  "
          f"{counts['requests']} requests, max {counts['max_us'] / 1000:.0f} ms {classes}", flush=True)
    return failed == 0


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--reloads", type=int, default=20)
    p.add_argument("--seconds", type=float, default=6, help="of a row of ours, unless two reloads take longer")
    p.add_argument("--clients", type=int, default=8)
    p.add_argument("--workers", type=int, default=4)
    p.add_argument("--only", default="", help="rows whose manager, server and load contain this")
    p.add_argument("--short", action="store_true")
    a = p.parse_args()
    print(f"{'manager':<13} {'server':<12} {'load':<9} {'lost/1e6':>9} {'a reload':>8} {'retried':>8} "
          f"{'ms a reload':>11}   fewest  n  RSS MiB  absolute", flush=True)
    well, sums = True, {}
    for kind_of_manager in managers.ALL:
        ours = kind_of_manager is managers.Minicluster
        why = kind_of_manager.can()
        if why:
            print(f"{kind_of_manager.name:<13} left out: {why}", flush=True)
            well &= not ours
            continue
        total = sums.setdefault(kind_of_manager.name, Sum())
        for kind in kind_of_manager.kinds:
            for load in kind_of_manager.loads:
                if load == "stream" and kind in ("cooperating", "python"):
                    continue  # these servers do not stream
                if a.short and not (ours and (kind, load) in SHORT):
                    continue
                if a.only in f"{kind_of_manager.name} {kind} {load}":
                    well &= row(kind_of_manager, kind, load, a, total) or not ours
    for name, why in managers.LEFT_OUT.items():
        print(f"{name:<13} left out: {why}", flush=True)
    for name, total in sums.items():
        if total.rows:
            print("SUMMARY " + total.line(name, sums.get(managers.Minicluster.name, Sum())))
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
