"""What servers have in common that are told apart by how they speak: they tell what they do, and serve."""

import os
import socket


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
