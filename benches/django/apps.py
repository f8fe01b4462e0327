"""Plain applications, where Django would only be in the way: a gigabyte each way, and events that tell when they were sent."""

import asyncio
import hashlib
import time

MIB = 1 << 20
SIZE = 1024 * MIB


def blocks():
    """The download, a mebibyte at a time; no two are equal."""
    base = hashlib.shake_128(b"vestibule").digest(MIB - 8)
    for number in range(SIZE // MIB):
        yield number.to_bytes(8, "big") + base


def transfer(environ, start_response):
    """POST: says the checksum of what it is sent. GET: sends a gibibyte."""
    if environ["REQUEST_METHOD"] == "POST":
        digest = hashlib.sha256()
        while piece := environ["wsgi.input"].read(MIB):
            digest.update(piece)
        text = digest.hexdigest().encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
        return [text]
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(SIZE))])
    return blocks()


async def events(scope, receive, send):
    """Two hundred server-sent events, each with the moment of its sending on the machine's own clock."""
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(200):
        await asyncio.sleep(0.02)
        data = f"data: {time.monotonic_ns()}\n\n".encode()
        await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
