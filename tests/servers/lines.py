#!/usr/bin/env python3
"""Programs that read and write lines as long as the master lives: lines.py STYLE.

  thanks   --on-message: thanks for {"cmd":"one","n":N} whoever has sent it, and for {"cmd":"all","n":N} everybody
  work     --delegate: does each work at once
  quiet    the same, and tells nothing of it
  hold     the same, when the file `go` is there
  dies     the first one ends when it has read a line; the next ones do their work
  garbage  writes what nobody understands before each answer
  twice    answers each work, and then twice with other fields
  hangs    reads one line, and neither reads nor ends any more
  deaf     goes by no SIGTERM and no end of its input

What they are asked they tell in the file $SAY.
"""

import json
import os
import signal
import sys
import time


def say(event, number=None):
    """One line, one write."""
    line = f"{event} {os.getpid()}" + ("" if number is None else f" {number}") + "\n"
    fd = os.open(os.environ["SAY"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(fd, line.encode())
    os.close(fd)


def write(value):
    print(value if isinstance(value, str) else json.dumps(value), flush=True)


style = sys.argv[1]
say("begun")
if style == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
for line in sys.stdin:
    it = json.loads(line)
    if style == "thanks":
        msg = it["msg"]
        assert it["pid"] > 1
        say("heard", msg.get("n"))
        if msg.get("cmd") == "one":
            write({"slot": it["slot"], "msg": {"thanks": msg["n"]}})
        elif msg.get("cmd") == "all":
            write({"msg": {"thanks": msg["n"]}})
        elif msg.get("cmd") == "nobody":
            write({"slot": 77, "msg": 1})
            write({"slot": "x", "msg": 1})
        continue
    assert it["origin"]["pid"] > 1 and it["type"] == "delegate"
    if style != "quiet":
        say("asked", it["n"])
    if style == "dies" and not os.path.exists("died"):
        open("died", "w").close()
        sys.exit(3)
    while style in ("hold", "hangs") and not os.path.exists("go"):
        time.sleep(0.005)
    if style == "garbage":
        write("garbage")
        write('{"type":')
        write("[1]")
        write("x" * 1_100_000)
    it["did"] = os.getpid()
    write(it)
    if style == "twice":
        for n in (it["n"] + 1, it["n"] + 2):
            write({"n": n, "type": it["expect"]})
while style == "deaf":
    time.sleep(10)
say("over")
