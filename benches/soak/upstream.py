"""What stands behind the edge in the soak: short answers, bodies counted, and WebSockets that say back what they hear."""

import asyncio
import base64
import hashlib

BODY = b"k" * 1024
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n"


def serve(listening):
    """On this socket, until the process is ended."""

    async def run():
        server = await asyncio.get_running_loop().create_server(Conversation, sock=listening)
        await server.serve_forever()

    asyncio.run(run())


class Conversation(asyncio.Protocol):
    """One connection of the edge's."""

    def connection_made(self, transport):
        self.transport, self.buffer, self.take = transport, b"", self.request

    def data_received(self, data):
        self.buffer += data
        while self.take():
            pass

    def request(self):
        """One request, once it is whole; the edge sends lengths alone, for it has read the body before."""
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        line, *lines = head.split(b"\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        length = int(fields.get(b"content-length", 0))
        if len(rest) < length:
            return False
        self.buffer = rest[length:]
        if b"sec-websocket-key" in fields:
            self.take = self.frame
            self.transport.write(SWITCH % accept(fields[b"sec-websocket-key"]))
        elif line.startswith(b"POST"):
            said = b"%d" % length
            self.transport.write(OK % len(said) + said)
        else:
            self.transport.write(OK % len(BODY) + BODY)
        return True

    def frame(self):
        """One short masked frame (RFC 6455 section 5.2), said back without its mask."""
        length = self.buffer[1] & 0x7F if len(self.buffer) > 1 else 0
        if len(self.buffer) < 6 + length:
            return False
        mask, payload = self.buffer[2:6], self.buffer[6 : 6 + length]
        said = bytes(octet ^ mask[at % 4] for at, octet in enumerate(payload))
        self.transport.write(bytes([self.buffer[0], length]) + said)
        self.buffer = self.buffer[6 + length :]
        return True


def accept(key):
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
