"""A WSGI application, for gunicorn."""

import os
import time


def app(environ, start_response):
    """Who answers; /slow thinks about it for a while."""
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.5)
    body = f"PID {os.getppid()} SLOT {os.environ['WORKER_ID']}\n".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
