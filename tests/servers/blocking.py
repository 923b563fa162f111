#!/usr/bin/env python3
"""A plain blocking HTTP server: one thread, one accept loop, one connection at a time.

No signal handling, nothing but the standard library: a signal kills it in the middle of whatever it
does. It stands for every small server that was never meant to be one of several:
blocking.py [PORT|unix:PATH] [NAME=VALUE...], else $PORT, else 8000; $HOST if set.

  handler=MS    a request takes so long
  keepalive=1   a connection is served until its client leaves, and nobody else meanwhile
  threads=1     a thread per connection
  fork=1        a process per connection; by a double fork, so that it is nobody's child, but for the first
  defer=S       TCP_DEFER_ACCEPT
  v6=1          AF_INET6, every address
  backlog=N     of listen(2); default 5
  start=MS      it takes so long before it binds
  broken=FILE   if there is such a file, it complains and exits 3 instead
  mute=FILE     if there is such a file, it never listens
  leak=KB       so much memory is lost with each request
  name=HEX      the kernel knows it by these bytes

What it does it tells, one line each, on the descriptor $SAY_FD or in the file $SAY: `listening`,
`request`, `mute`.
"""

import os
import socket
import sys
import threading
import time


def open_say():
    """The descriptor to tell on, or None."""
    if os.environ.get("SAY_FD"):
        return int(os.environ["SAY_FD"])
    if os.environ.get("SAY"):
        return os.open(os.environ["SAY"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    return None


SAY = open_say()
PID = os.getpid()
LOST = []


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


def answer(conn, opt):
    """One request, one answer. False if the connection is over."""
    if not read_request(conn):
        return False
    say("request")
    LOST.append(os.urandom(opt["leak"] * 1024))
    time.sleep(opt["handler"] / 1000)
    keep = opt["keepalive"]
    body = f"PID {PID} SLOT {os.environ.get('WORKER_ID', '-')}\n".encode()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    )
    conn.sendall(head.encode() + body)
    return keep


def fork(conn, opt, twice):
    """A process of its own serves it."""
    child = os.fork()
    if child == 0:
        if not twice or os.fork() == 0:
            serve(conn, opt)
        os._exit(0)
    conn.close()
    if twice:
        os.waitpid(child, 0)


def serve(conn, opt):
    """A connection to its end."""
    with conn:
        try:
            while answer(conn, opt):
                pass
        except OSError:
            pass  # the client's affair


def listen(where, opt):
    """The socket, listening."""
    if where.startswith("unix:"):
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if os.path.exists(where[5:]):
            os.unlink(where[5:])
        server.bind(where[5:])
    else:
        family = socket.AF_INET6 if opt["v6"] else socket.AF_INET
        server = socket.socket(family, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if opt["defer"]:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, opt["defer"])
        every = "::" if opt["v6"] else "0.0.0.0"
        server.bind((os.environ.get("HOST", every), int(where)))
    server.listen(opt["backlog"])
    return server


def options(words):
    """Where to listen, and how."""
    where = os.environ.get("PORT", "8000")
    names = ["handler", "keepalive", "threads", "fork", "defer", "v6", "start", "leak"]
    opt = dict.fromkeys(names, 0)
    opt.update(backlog=5, broken="", mute="", name="")
    for word in words:
        name, is_option, value = word.partition("=")
        if not is_option:
            where = word
        elif name not in opt:
            sys.exit(f"blocking.py: no such option: {name}")
        else:
            opt[name] = value if isinstance(opt[name], str) else int(value)
    return where, opt


def main():
    """Listens, then serves for ever."""
    where, opt = options(sys.argv[1:])
    if opt["broken"] and os.path.exists(opt["broken"]):
        print("blocking.py: this version is broken", file=sys.stderr)
        sys.exit(3)
    if opt["name"]:
        with open("/proc/self/comm", "wb") as comm:
            comm.write(bytes.fromhex(opt["name"]))
    time.sleep(opt["start"] / 1000)
    if opt["mute"] and os.path.exists(opt["mute"]):
        say("mute")
        while True:
            time.sleep(3600)
    server = listen(where, opt)
    say("listening")
    forked = 0
    while True:
        conn, _ = server.accept()
        if opt["fork"]:
            fork(conn, opt, forked > 0)
            forked += 1
        elif opt["threads"]:
            threading.Thread(target=serve, args=(conn, opt), daemon=True).start()
        else:
            serve(conn, opt)


main()
