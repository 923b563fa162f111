"""A WSGI application, for gunicorn."""

import os


def app(environ, start_response):
    """Who answers."""
    body = f"PID {os.getppid()} SLOT {os.environ['WORKER_ID']}\n".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
