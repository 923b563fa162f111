"""A server whose page /up is bad as long as there is a file "down" beside it, whose page /hang is never
answered, and which hangs up on every other one who asks for /odd. It writes down how it was asked for
these. On SIGTERM it ends at once."""

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

odd = False


class Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        global odd
        if self.path in ("/up", "/hang", "/odd"):
            with open("asked", "a") as file:
                file.write(f"{self.requestline}\n{self.headers}\n".replace("\r", ""))
        if self.path == "/hang":
            threading.Event().wait()
        if self.path == "/odd":
            odd = not odd
            if odd:
                self.close_connection = True
                return
        good = self.path != "/up" or not os.path.exists("down")
        self.send_response(200 if good else 503)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, *_):
        pass


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
ThreadingHTTPServer.daemon_threads = True
ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Pages).serve_forever()
