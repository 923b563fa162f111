#!/usr/bin/env python3
"""Servers of sockets of every kind: sockets.py HABIT [PATH].

  plain PATH  removes the unix socket at PATH, binds it and serves it, as a server does that thinks
              it is alone
  bind PATH   binds it without removing it, and ends if that fails
  passed      serves all sockets that LISTEN_FDS passes to it

An answer is `PID n SLOT n FD n`, and what the connection has of SO_KEEPALIVE and its like.
"""

import os
import socket
import sys
import threading

OPTIONS = [
    ("keepalive", socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    ("idle", socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    ("interval", socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    ("count", socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    ("user-timeout", socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
]


def serve(s):
    """One request a connection."""
    while True:
        conn, _ = s.accept()
        conn.recv(65536)
        body = f"PID {os.getpid()} SLOT {os.environ['WORKER_ID']} FD {s.fileno()}\n"
        if s.family != socket.AF_UNIX:
            for name, level, option in OPTIONS:
                body += f"{name} {conn.getsockopt(level, option)}\n"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        try:
            conn.sendall((head + body).encode())
        except BrokenPipeError:
            pass  # it only looked whether somebody is there
        conn.close()


def main():
    habit = sys.argv[1]
    if habit == "passed":
        assert int(os.environ["LISTEN_PID"]) == os.getpid()
        for fd in range(3, 3 + int(os.environ["LISTEN_FDS"])):
            s = socket.socket(fileno=fd)
            threading.Thread(target=serve, args=(s,)).start()
        return
    path = sys.argv[2]
    if habit == "plain" and os.path.exists(path):
        os.unlink(path)
    s = socket.socket(socket.AF_UNIX)
    s.bind("\0" + path[1:] if path.startswith("@") else path)
    s.listen(5)
    serve(s)


main()
