#!/usr/bin/env python3
"""Servers that say themselves when they are ready: speech.py TONGUE [ARG].

  notify      as to systemd, on NOTIFY_SOCKET
  pulse N     the same, and that it is well, N times, each time $WATCHDOG_USEC / 4 after the last; then
              it hangs
  says        ready; then, at each SIGUSR1, whatever the file `words` holds
  newline FD  by a newline on that descriptor
  einhorn     by einhorn's acknowledgement, on EINHORN_SOCK_PATH, as its Ruby client writes it
  starter     serves what SERVER_STARTER_PORT names, and says nothing

All but `starter` serve what LISTEN_FDS passes. Before it speaks, a server waits until the file `go` is
there; what it does it tells, one line each, in the file $SAY.
"""

import os
import signal
import socket
import sys
import threading
import time

sys.dont_write_bytecode = True
from telling import say, serve  # noqa: E402


def notify(text):
    """As sd_notify(3) does."""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.sendto(text.encode(), "\0" + os.environ["NOTIFY_SOCKET"][1:])
    s.close()


def acknowledge():
    """A worker knows einhorn by its parent; line breaks of YAML are escaped."""
    assert int(os.environ["EINHORN_MASTER_PID"]) == os.getppid()
    s = socket.socket(socket.AF_UNIX)
    s.connect(os.environ["EINHORN_SOCK_PATH"])
    s.sendall(f"---%0Acommand: worker:ack%0Apid: {os.getpid()}%0A\n".encode())
    say("answered" if b"acknowledged" in s.recv(1000) else "refused")
    s.close()


def pulse(count):
    """So often, and then never again."""
    signal.signal(signal.SIGABRT, lambda *_: (say("aborted"), os._exit(1)))
    for _ in range(count):
        time.sleep(int(os.environ["WATCHDOG_USEC"]) / 4e6)
        say("pulse")
        notify("WATCHDOG=1")
    say("hangs")
    while True:
        signal.pause()


def main():
    tongue = sys.argv[1]
    if tongue == "starter":
        ports = dict(p.split("=") for p in os.environ["SERVER_STARTER_PORT"].split(";"))
        fds = [int(fd) for fd in ports.values()]
        assert os.environ["SERVER_STARTER_GENERATION"] == "1"
    else:
        fds = range(3, 3 + int(os.environ["LISTEN_FDS"]))
    for fd in fds:
        threading.Thread(target=serve, args=(fd,), daemon=True).start()
    say("waits")
    while not os.path.exists("go"):
        time.sleep(0.005)
    if tongue == "newline":
        os.write(int(sys.argv[2]), b"\n")
        os.close(int(sys.argv[2]))
    elif tongue == "einhorn":
        acknowledge()
    elif tongue == "says":
        signal.signal(signal.SIGUSR1, lambda *_: notify(open("words").read()))
        notify("READY=1")
    elif tongue in ("notify", "pulse"):
        notify("STATUS=about to be\nREADY=1")
    if tongue == "pulse":
        pulse(int(sys.argv[2]))
    while True:
        signal.pause()


main()
