#!/usr/bin/env python3
"""A plain blocking HTTP server: one thread, one accept loop, one connection at a time.

No signal handling, no options, nothing but the standard library. It stands for every small server
that was never meant to be one of several: blocking.py [PORT], else $PORT, else 8000; $HOST if set.
What it does it tells, one line each, on the descriptor $SAY_FD or in the file $SAY.
"""

import os
import socket
import sys


def open_say():
    """The descriptor to tell on, or None."""
    if os.environ.get("SAY_FD"):
        return int(os.environ["SAY_FD"])
    if os.environ.get("SAY"):
        return os.open(os.environ["SAY"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    return None


SAY = open_say()
PID = os.getpid()


def say(event):
    """One line, one write."""
    if SAY is not None:
        os.write(SAY, f"{event} {PID}\n".encode())


def read_request(conn):
    """Reads a request with its body. False if the client went away first."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = conn.recv(65536)
        if not more:
            return False
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    missing = length - len(body)
    while missing > 0:
        more = conn.recv(min(missing, 65536))
        if not more:
            return False
        missing -= len(more)
    return True


def answer(conn):
    """One request, one answer."""
    if not read_request(conn):
        return
    say("request")
    body = f"PID {PID} SLOT {os.environ.get('WORKER_ID', '-')}\n".encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    conn.sendall(head.encode() + body)


def main():
    """Listens, then serves for ever."""
    port = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PORT", "8000"))
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((os.environ.get("HOST", "0.0.0.0"), port))
    server.listen(5)
    say("listening")
    while True:
        conn, _ = server.accept()
        with conn:
            try:
                answer(conn)
            except OSError:
                pass  # the client's affair


main()
