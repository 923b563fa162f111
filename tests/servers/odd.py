#!/usr/bin/env python3
"""Servers that do with their socket what few do: odd.py HABIT PORT [PORT].

  shared      another process binds the socket (as authbind does), and ours listens
  device      the socket is bound to the interface $DEVICE alone; GET tells which one it has then
  filter      the socket has a filter attached
  freebind    an address that no interface has
  connects    no server: connects from the first port to the second, writes a line with its slot, reads
              to the end, and again
  forking     has two threads that start programs all the time, and binds meanwhile, 20 times
  passes      sends sockets that linger, as the last who has them, over NODE_CHANNEL_FD and to
              NOTIFY_SOCKET, all the time
  slow        serves one after the other, and takes $TAKES seconds for each
  comet       serves, and has a child that ignores TERM, forks and ends, and so on for 20 s

What it does it tells, one line each, in the file $SAY.
"""

import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

SO_BINDTODEVICE = 25
SO_ATTACH_FILTER = 26
IP_FREEBIND = 15


def say(event, number=None):
    """One line, one write."""
    line = f"{event} {os.getpid()}" + ("" if number is None else f" {number}") + "\n"
    fd = os.open(os.environ["SAY"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(fd, line.encode())
    os.close(fd)


def tcp():
    """A socket that may have a port which others have used."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return s


def bind(s, host, port):
    """Or tells why not, and ends."""
    try:
        s.bind((host, port))
    except OSError as e:
        say("bind-failed", e.errno)
        sys.exit(1)


def attach_filter(s):
    """One that lets everything through."""
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xFFFFFFFF))
    program = struct.pack("HL", 1, ctypes.addressof(instruction))
    s.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def serve(s):
    """For ever."""
    s.listen(5)
    say("listening")
    slot = os.environ.get("WORKER_ID", "-")
    device = s.getsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, 16).rstrip(b"\0").decode()
    while True:
        conn, _ = s.accept()
        with conn:
            conn.recv(4096)
            time.sleep(float(os.environ.get("TAKES", "0")))
            body = f"PID {os.getpid()} SLOT {slot}\ndevice {device or '-'}\n"
            conn.sendall(f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())


def shared(port):
    """The child binds."""
    s = tcp()
    child = os.fork()
    if child == 0:
        bind(s, "0.0.0.0", port)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit(1)
    serve(s)


def connects(port, to):
    """As a client that has to come from a certain port."""
    while True:
        with tcp() as s:
            bind(s, "127.0.0.1", port)
            try:
                s.connect(("127.0.0.1", to))
                s.sendall(f"slot {os.environ['WORKER_ID']}\n".encode())
                while s.recv(4096):
                    pass
            except OSError:
                time.sleep(0.01)  # the port is in use, by a sibling


def forking(port):
    """Children between fork and exec have a copy of every socket."""
    over = threading.Event()

    def start():
        while not over.is_set():
            subprocess.run(["true"], check=True)

    threads = [threading.Thread(target=start) for _ in range(2)]
    for t in threads:
        t.start()
    for _ in range(20):
        s = tcp()
        bind(s, "0.0.0.0", port)
        s.close()
    over.set()
    for t in threads:
        t.join()


def lingering(listener, peers):
    """A connection with something unsent that nobody will read: its last close waits."""
    s = socket.create_connection(listener.getsockname())
    peers.append(listener.accept()[0])
    s.setblocking(False)
    try:
        while True:
            s.send(b"x" * 65536)
    except BlockingIOError:
        pass
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 30))
    return s


def passes():
    """Until it is stopped. Few at a time: each is a connection."""
    channel = socket.socket(fileno=int(os.environ["NODE_CHANNEL_FD"]))
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.connect("\0" + os.environ["NOTIFY_SOCKET"][1:])
    listener = socket.create_server(("127.0.0.1", 0))
    peers = []
    for n in range(24):
        s = lingering(listener, peers)
        to = channel if n % 2 else notify
        socket.send_fds(to, [b"{}\n"], [s.fileno()])
        # Ours may be the last but one: either way it must hold up nobody but us.
        threading.Thread(target=s.close).start()
    say("passed")
    signal.pause()


def comet():
    """Never the same process for long."""
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end = time.monotonic() + 20
        say("comet")
        while time.monotonic() < end:
            if os.fork() != 0:
                os._exit(0)
        os._exit(0)


def main():
    """By habit."""
    habit, ports = sys.argv[1], [int(p) for p in sys.argv[2:]]
    if habit == "shared":
        shared(ports[0])
    if habit == "connects":
        connects(*ports)
    if habit == "forking":
        forking(ports[0])
    if habit == "passes":
        passes()
    s, host = tcp(), "0.0.0.0"
    if habit == "device":
        s.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, os.environ["DEVICE"].encode())
    elif habit == "filter":
        attach_filter(s)
    elif habit == "freebind":
        host = "198.51.100.7"
        s.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    bind(s, host, ports[0])
    if habit == "comet":
        comet()
    serve(s)


main()
