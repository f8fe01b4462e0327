"""The WebSocket server behind the peers: says back each message of fewer than 64 KiB. `python echo.py PORT`."""

import asyncio
import base64
import hashlib
import re
import sys

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.heard, self.open = transport, b"", False

    def data_received(self, data):
        self.heard += data
        if not self.open and b"\r\n\r\n" in self.heard:
            self.upgrade()
        while self.open and len(self.heard) >= 4 and len(self.heard) >= 8 + self.length():
            self.answer(self.length())

    def upgrade(self):
        head, _, self.heard = self.heard.partition(b"\r\n\r\n")
        key = re.search(rb"(?im)^sec-websocket-key: *(\S+)", head)[1]
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        upgraded = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.transport.write(upgraded + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        self.open = True

    def length(self):
        return int.from_bytes(self.heard[2:4], "big")

    def answer(self, length):
        """Of the message's head, the flag and the four octets of its mask go."""
        first, mask, masked = self.heard[:1], self.heard[4:8], self.heard[8 : 8 + length]
        whole = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
        plain = (int.from_bytes(masked, "big") ^ whole).to_bytes(length, "big")
        self.transport.write(first + b"\x7e" + length.to_bytes(2, "big") + plain)
        self.heard = self.heard[8 + length :]


async def main(port):
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1])))
