"""A server whose workers do to their shared listening socket what a threaded server may do to wake its
accept: on USR1, shutdown(2). It survives what that does to it."""

import signal
import socket
import sys


def say(what):
    import os

    with open(os.environ["SAY"], "a") as f:
        f.write(f"{what} {os.getpid()}\n")


listener = socket.socket()
listener.bind(("0.0.0.0", int(sys.argv[1])))
listener.listen()


def silence(signum, frame):
    listener.shutdown(socket.SHUT_RDWR)
    say("silenced")


signal.signal(signal.SIGUSR1, silence)
while True:
    try:
        connection, _ = listener.accept()
    except OSError:
        say("accept-failed")
        continue
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
