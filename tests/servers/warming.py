#!/usr/bin/env python3
"""A server that is not ready when it listens: warming.py PORT.

Until there is a file go-GENERATION in its directory /health is answered with 503, and with $LATE nothing
is accepted. Whoever asks for anything else before gets its answer, and that is told (`early`): one line
each in the file $SAY.
"""

import os
import socket
import sys
import time


def say(event):
    """One line, one write."""
    fd = os.open(os.environ["SAY"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(fd, f"{event} {os.getpid()}\n".encode())
    os.close(fd)


GO = "go-" + os.environ["MINICLUSTER_GENERATION"]


def main():
    """One after the other."""
    s = socket.socket(socket.AF_INET6 if "V6" in os.environ else socket.AF_INET)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("", int(sys.argv[1])))
    s.listen(64)
    say("listening")
    while "LATE" in os.environ and not os.path.exists(GO):
        time.sleep(0.01)
    while True:
        conn, _ = s.accept()
        with conn:
            words = conn.recv(4096).decode().split(" ")
            warm = os.path.exists(GO)
            status = "200 OK"
            if len(words) < 2:
                continue
            if words[1] == "/health":
                say("asked")
                status = status if warm else "503 Not Yet"
            elif not warm:
                say("early")
            body = f"PID {os.getpid()} SLOT {os.environ['WORKER_ID']}\n"
            conn.sendall(f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{body}".encode())


main()
