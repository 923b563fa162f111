#!/usr/bin/env python3
"""All benches, one after the other, and what they come to, ratios first: run.py [short].

Short is for a machine that is waited for: fewer runs, and of the reloads only ours. A bench exits 1 if a
figure of ours is over its limit; then so does this, when all have run.
"""

import os
import signal
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
# Each bench, what it is told in the short mode, and after how many seconds it is given up.
BENCHES = [
    ("reload.py", ["--short", "--seconds", "2", "--reloads", "4"], 900),
    ("throughput.py", ["--pairs", "3", "--seconds", "0.4", "--limit", "0.5"], 120),
    ("respawn.py", ["--runs", "11"], 60),
    ("kills.py", ["--kills", "20"], 60),
    ("idle.py", ["--watch", "5", "--settle", "1", "--many", "32"], 120),
]


def run(name, words, patience):
    """Shows what it prints; returns its last words and whether all was well."""
    begin, lines = time.monotonic(), []
    print(f"== {name} {' '.join(words)}".rstrip(), flush=True)
    bench = subprocess.Popen([sys.executable, os.path.join(HERE, name), *words],
                             stdout=subprocess.PIPE, text=True)
    # As Ctrl-C does it: what it has started ends with it.
    timer = threading.Timer(patience, bench.send_signal, [signal.SIGINT])
    timer.start()
    for line in bench.stdout:
        lines.append(line.rstrip())
        print(lines[-1], flush=True)
    code = bench.wait()
    timer.cancel()
    said = [line.removeprefix("SUMMARY ") for line in lines if line.startswith("SUMMARY ")] or lines
    return said, code, time.monotonic() - begin


def main():
    short = sys.argv[1:] == ["short"]
    if sys.argv[1:] not in ([], ["short"]):
        sys.exit("usage: run.py [short]")
    done = []
    for name, words, patience in BENCHES:
        done.append((name, *run(name, words if short else [], patience)))
    print("\n== summary")
    for name, said, code, took in done:
        print(f"{name} ({took:.0f} s): {'ok' if code == 0 else f'OVER ITS LIMIT OR FAILED, exit {code}'}")
        for line in said:
            print(f"  {line}")
    sys.exit(1 if any(code for _, _, code, _ in done) else 0)


if __name__ == "__main__":
    main()
