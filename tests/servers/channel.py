#!/usr/bin/env python3
"""Servers that speak Node's channel in Python: channel.py STYLE.

  echo    ready; answers every message {"cmd":..} with the same cmd and, as msg, what it has heard, as text
  flood   says more than anybody can want, for ever: messages for all, garbage, lines without an end
  passes  ready; told {"cmd":"load","count":N} it passes a descriptor with each of N lines, tells how many milliseconds
          that took, and says {"cmd":"passed"}
  deaf    ready; reads nothing of its channel until the file `go` is there, then tells how much it got
  storm   ready; says more than is good, to its master and to its NOTIFY_SOCKET, as long as the file `storm` is there;
          with `huge`, some of them more in a line than a channel holds, and all to their stdout
  heir    ready; leaves when the file `go-PID` is there, and a child of it says all it can for ever

  puppet  ready; sends what it is told to, with its pid for "me", and tells what comes of it
  asks    ready; told {"cmd":"load","count":N} it delegates N pieces of work, some at a time, and tells how many
          were answered

All serve what LISTEN_FDS passes; what they do they tell in the file $SAY.
"""

import json
import os
import socket
import sys
import threading
import time

sys.dont_write_bytecode = True
from telling import say, serve  # noqa: E402


def notify(texts):
    """Datagrams to whoever started us; those that find no room are lost."""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.setblocking(False)
    for text in texts:
        try:
            s.sendto(text, os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
        except OSError:
            pass
    s.close()


def echo(channel, lines):
    channel.sendall(b'{"cmd":"ready"}\n')
    for line in lines:
        cmd = json.loads(line).get("cmd")
        if cmd == "disconnect":
            say("told")
        elif cmd:
            answer = {"cmd": cmd, "msg": line.decode().rstrip("\n")}
            channel.sendall(json.dumps(answer).encode() + b"\n")


def flood(channel, lines):
    channel.sendall(b'{"cmd":"ready"}\n')
    threading.Thread(target=lambda: [0 for _ in lines], daemon=True).start()
    for_all = b'{"command":"noise","x":"' + b"x" * 1000 + b'"}\n'
    small = b'{"cmd":"noise"}\n' * 1000
    said = False
    while True:
        channel.sendall(for_all * 50 + b"garbage\n" * 50 + small + b"y" * 3_000_000 + b"\n")
        if not said:
            said = True
            say("flooded")


def storm(channel, lines):
    # More than a channel holds: who sends it waits for the master.
    huge = sys.argv[2:] == ["huge"]
    channel.sendall(b'{"cmd":"ready"}\n')
    threading.Thread(target=lambda: [0 for _ in lines], daemon=True).start()
    said = b'{"command":"noise","x":"' + b"x" * 1000 + b'"}\n' + b'{"cmd":"noise"}\n' * 20
    said += b'garbage\n{"type":"delegate","delegate":"nobody"}\n' + b"[" * 200 + b"\n"
    told = [b"READY=1", b"STATUS=" + b"s" * 3000, b"\xff\0=\n", b"x" * 9000, b"WATCHDOG=1\nSTATUS=\xfe"]
    while os.path.exists("storm"):
        channel.sendall(said)
        notify(told * 10)
        say("notified")
        if huge:
            print("o" * 500, flush=True)
        if huge and os.getpid() % 7 == 0:
            channel.sendall(b"y" * 3_000_000 + b"\n")
        time.sleep(0.05)


def heir(channel, lines):
    channel.sendall(b'{"cmd":"ready"}\n')
    go, child = f"go-{os.getpid()}", os.fork()
    while not os.path.exists(go):
        time.sleep(0.01)
    if child:
        time.sleep(0.1)
        os._exit(0)
    say("heir")
    while True:
        channel.sendall(b'{"cmd":"noise"}\n' * 1000)


def puppet(channel, lines):
    if "HOLD" in os.environ:
        return
    channel.sendall(b'{"cmd":"ready"}\n')
    for line in lines:
        m = json.loads(line)
        if m.get("cmd") == "do":
            text = json.dumps(m["say"]).replace('"me"', str(os.getpid()))
            channel.sendall(text.encode() + b"\n")
        elif "type" in m:
            # First what is read by who hears of it.
            if "error" in m:
                with open("errors", "a") as errors:
                    errors.write(m["error"] + "\n")
            say("error" if "error" in m else m["type"], m.get("n"))
        elif "thanks" in m:
            say("thanks", m["thanks"])


def asks(channel, lines):
    channel.sendall(b'{"cmd":"ready"}\n')
    at_once = 100
    for line in lines:
        count = json.loads(line).get("count")
        if not count:
            continue
        sent = answered = 0
        while answered < count:
            while sent < count and sent - answered < at_once:
                work = {"type": "delegate", "delegate": "work", "expect": "done", "matches": ["n"]}
                work |= {"n": sent * 1000 + os.getpid() % 1000, "targets": [os.getpid()]}
                channel.sendall(json.dumps(work).encode() + b"\n")
                sent += 1
            m = json.loads(next(lines))
            if m.get("type") == "done" and "error" not in m:
                answered += 1
        say("loaded", answered)


def passes(channel, lines):
    channel.sendall(b'{"cmd":"ready"}\n')
    end, _ = os.pipe()
    for line in lines:
        count = json.loads(line).get("count", 0)
        begun = time.monotonic()
        for _ in range(count):
            socket.send_fds(channel, [b"\n"], [end])
        if count:
            say("took", int((time.monotonic() - begun) * 1000))
            channel.sendall(b'{"cmd":"passed"}\n')


def deaf(channel, lines):
    channel.sendall(b'{"cmd":"ready"}\n')
    while not os.path.exists("go"):
        time.sleep(0.01)
    got = 0
    for line in lines:
        assert json.loads(line)
        got += 1
        if b'"last"' in line:
            say("got", got)


def main():
    channel = socket.socket(fileno=int(os.environ["NODE_CHANNEL_FD"]))
    lines = channel.makefile("rb")
    for fd in range(3, 3 + int(os.environ["LISTEN_FDS"])):
        threading.Thread(target=serve, args=(fd,), daemon=True).start()
    styles = {"echo": echo, "flood": flood, "puppet": puppet, "asks": asks, "deaf": deaf, "storm": storm, "heir": heir}
    styles["passes"] = passes
    styles[sys.argv[1]](channel, lines)
    threading.Event().wait()


main()
