"""Slow senders: `python slow.py PORT TLS COUNT`. Each uploads 1 MB at 10 KB a second, over and over, until stdin ends.

They begin where they would be had they been there for long: each has a random part of its body behind it. Prints `ready`
once these are sent, or after ten seconds, and at the end how many uploads were answered, by status.
"""

import asyncio
import json
import random
import ssl
import sys
from collections import Counter

SIZE, RATE = 1_000_000, 10_000
HOST = "bench.example"


async def main(port, tls, count):
    context = ssl.create_default_context(cafile=tls) if tls else None
    answers, begun = Counter(), [asyncio.Event() for _ in range(count)]
    senders = [asyncio.create_task(send_on(port, context, answers, event)) for event in begun]
    await asyncio.wait([asyncio.create_task(event.wait()) for event in begun], timeout=10)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for sender in senders:
        sender.cancel()
    print(json.dumps(answers))


async def send_on(port, context, answers, begun):
    ahead = random.randrange(SIZE)
    while True:
        try:
            answers[await send(port, context, ahead, begun)] += 1
        except OSError as error:
            answers[type(error).__name__] += 1
            await asyncio.sleep(1)
        begun.set()
        ahead = 0


async def send(port, context, ahead, begun):
    name = HOST if context else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    try:
        head = f"POST /echo HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-Proto: https\r\nContent-Length: {SIZE}\r\n\r\n"
        writer.write(head.encode() + b"x" * ahead)
        await writer.drain()
        begun.set()
        for sent in range(ahead, SIZE, RATE):
            await asyncio.sleep(1)
            writer.write(b"x" * min(RATE, SIZE - sent))
            await writer.drain()
        status = (await reader.readline()).split()
        return status[1].decode() if len(status) > 1 else "closed"
    finally:
        writer.close()


asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
