#!/usr/bin/env python3
"""Servers that speak Node's channel in Python: channel.py STYLE.

  echo    ready; answers every message {"cmd":..} with the same cmd and, as msg, what it has heard, as text
  flood   says more than anybody can want, for ever: messages for all, garbage, lines without an end
  deaf    ready; reads nothing of its channel until the file `go` is there, then tells how much it got

All serve what LISTEN_FDS passes; what they do they tell in the file $SAY.
"""

import json
import os
import socket
import sys
import threading
import time


def say(event, number=None):
    """One line, one write."""
    line = f"{event} {os.getpid()}" + ("" if number is None else f" {number}") + "\n"
    fd = os.open(os.environ["SAY"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(fd, line.encode())
    os.close(fd)


def serve(fd):
    """One request a connection."""
    s = socket.socket(fileno=fd)
    while True:
        conn, _ = s.accept()
        conn.recv(65536)
        body = f"PID {os.getpid()} SLOT {os.environ['WORKER_ID']}\n"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        conn.sendall((head + body).encode())
        conn.close()


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
    {"echo": echo, "flood": flood, "deaf": deaf}[sys.argv[1]](channel, lines)
    threading.Event().wait()


main()
