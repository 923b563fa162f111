#!/usr/bin/env python3
"""Clients that hold what takes long, and tell what was cut: streams.py PORT [SECONDS] [KIND...].

  slow          one request after another, each answered after 1 s
  stream-300    one chunked answer after another, that pauses 300 ms between its 10 lines
  stream-1500   the same with 1500 ms and 3 lines
  sse           server-sent events, without an end
  ws            a websocket on which each text is echoed, 20 times a second

All kinds unless some are named, against the server selecting.js. It ends after SECONDS (0: when stdin
is closed); what has an end and is under way may come to it. A line for each cut as it happens, and at
the end one for each kind:

  KIND whole=N cut=N lost=N refused=N longest_s=N

cut: in the middle; lost: before its first byte. Exits 1 if something with an end was cut or lost or
anything was refused: what has no end has to be cut some time.
"""

import base64
import hashlib
import http.client
import os
import socket
import struct
import sys
import threading
import time

PATIENCE = 15
ENDLESS = ("sse", "ws")
over = threading.Event()
lock = threading.Lock()


class Cut(Exception):
    """It ended in the middle."""


class Client(threading.Thread):
    """Holds one kind, again and again."""

    def __init__(self, kind, port):
        super().__init__(daemon=True)
        self.kind, self.port = kind, port
        self.whole = self.cut = self.lost = self.refused = 0
        self.longest = 0.0

    def run(self):
        hold = {"sse": self.sse, "ws": self.websocket}.get(self.kind, self.answer)
        while not over.is_set():
            self.begin, self.got = time.monotonic(), 0
            try:
                hold()
                self.whole += 1
            except ConnectionRefusedError:
                self.refused += 1
                over.wait(0.01)
            except (OSError, Cut, http.client.HTTPException) as error:
                self.count(error)
            self.longest = max(self.longest, time.monotonic() - self.begin)

    def count(self, error):
        """It came to grief."""
        how = "cut" if self.got else "lost"
        setattr(self, how, getattr(self, how) + 1)
        held = time.monotonic() - self.begin
        why = str(error) or type(error).__name__
        with lock:
            print(f"{time.time():.3f} {self.kind} {how} after {held:.3f} s, {self.got} pieces: {why}", flush=True)

    def request(self, path):
        """An answer that has begun."""
        conn = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        conn.request("GET", path, headers={"Connection": "close"})
        response = conn.getresponse()
        if response.status != 200:
            raise Cut(f"status {response.status}")
        return response

    def answer(self):
        """One that has an end."""
        paths = {
            "slow": "/slow?ms=1000",
            "stream-300": "/stream?n=10&ms=300",
            "stream-1500": "/stream?n=3&ms=1500",
        }
        response = self.request(paths[self.kind])
        while response.readline():
            self.got += 1
        # What is chunked and cut has no last chunk; this client does not insist on it.
        if self.kind != "slow" and self.got != int(paths[self.kind].split("n=")[1].split("&")[0]) + 2:
            raise Cut("it has no last line")

    def sse(self):
        response = self.request("/sse?ms=100")
        while not over.is_set():
            if not response.readline():
                raise Cut("end of file")
            self.got += 1

    def websocket(self):
        key = base64.b64encode(os.urandom(16))
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as s:
            s.sendall(
                b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
            )
            reader = s.makefile("rb")
            head = b""
            while line := reader.readline().strip():
                head += line + b"\n"
            digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            if base64.b64encode(digest) not in head:
                raise Cut("no handshake")
            while not over.wait(0.05):
                self.echo(s, reader)
                self.got += 1

    def echo(self, s, reader):
        """A text there and back."""
        text, mask = f"text {self.got}".encode(), os.urandom(4)
        masked = bytes(b ^ mask[i % 4] for i, b in enumerate(text))
        s.sendall(struct.pack("BB", 0x81, 0x80 | len(text)) + mask + masked)
        head = reader.read(2)
        if len(head) < 2:
            raise Cut("end of file")
        if head[0] != 0x81 or reader.read(head[1]) != text:
            raise Cut("not an echo")


def main():
    kinds = sys.argv[3:] or ["slow", "stream-300", "stream-1500", "sse", "ws"]
    clients = [Client(kind, int(sys.argv[1])) for kind in kinds]
    for c in clients:
        c.start()
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 0
    if seconds:
        time.sleep(seconds)
    else:
        sys.stdin.read()
    over.set()
    for c in clients:
        c.join()
    bad = False
    for c in clients:
        print(f"{c.kind} whole={c.whole} cut={c.cut} lost={c.lost} refused={c.refused} longest_s={c.longest:.3f}")
        bad |= c.refused > 0 or (c.kind not in ENDLESS and c.cut + c.lost > 0)
    sys.exit(1 if bad else 0)


main()
