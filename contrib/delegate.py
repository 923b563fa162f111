#!/usr/bin/env python3
"""Work that workers delegate, with both sides in one file: delegate.py worker, delegate.py program.

    minicluster -n 4 -p 3000 --ipc node --delegate 'square=python3 contrib/delegate.py program' \\
        -- python3 contrib/delegate.py worker

    curl localhost:3000/12      # worker 2: the square of 12 is 144 (asked once)

Each worker answers GET /N with the square of N, which it has the program work out. However many clients
ask for the same number at a time, through whichever workers, the program is asked once.
"""

import http.server
import json
import os
import socket
import sys
import threading


def program():
    """A line for each piece of work; the answer is the same line with something more in it."""
    asked = {}
    for line in sys.stdin:
        work = json.loads(line)
        n = work["n"]
        asked[n] = asked.get(n, 0) + 1
        work["square"], work["asked"] = n * n, asked[n]
        # Flushed: nobody waits for a line that stays here.
        print(json.dumps(work), flush=True)


class Delegates:
    """The worker's side: the channel that NODE_CHANNEL_FD names, a JSON value a line both ways."""

    def __init__(self):
        self.channel = socket.socket(fileno=int(os.environ["NODE_CHANNEL_FD"]))
        self.lock = threading.Lock()
        self.waiting = {}
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.channel.makefile("rb"):
            message = json.loads(line)
            if isinstance(message, dict) and message.get("type") == "squared":
                with self.lock:
                    for answer in self.waiting.pop(message.get("n"), []):
                        answer.append(message)
                        answer[0].set()

    def square(self, n):
        answer = [threading.Event()]
        work = {
            "type": "delegate",
            "delegate": "square",
            "expect": "squared",
            "matches": ["n"],  # an answer is one to this if it has the same n
            "n": n,
            "timeOut": 5000,
            "targets": [os.getpid()],  # who hears the answer
        }
        with self.lock:
            self.waiting.setdefault(n, []).append(answer)
            self.channel.sendall(json.dumps(work).encode() + b"\n")
        # It comes back in any case, with an error if need be; but the channel may be closed.
        answer[0].wait(10)
        return answer[1] if len(answer) > 1 else {"error": "no answer"}


def worker():
    delegates = Delegates()

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            n = self.path.strip("/")
            if not (n.isdigit() and len(n) < 10):
                return self.send_error(404)
            done = delegates.square(int(n))
            if "error" in done:
                return self.send_error(503, done["error"])
            times = {1: "once"}.get(done["asked"], f"{done['asked']} times")
            text = f"worker {os.environ['WORKER_ID']}: the square of {n} is {done['square']} (asked {times})\n"
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Page).serve_forever()


{"worker": worker, "program": program}[sys.argv[1]]()
