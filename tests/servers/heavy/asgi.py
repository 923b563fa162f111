"""An ASGI application, for uvicorn."""

import asyncio
import os


async def app(scope, receive, send):
    """Who answers; /slow thinks about it for a while."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(0.5)
    body = f"PID {os.getpid()} SLOT {os.environ['WORKER_ID']}\n".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
