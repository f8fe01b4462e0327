"""Memory at rest, and what an idle TLS connection adds to it."""

from contextlib import ExitStack

from load import ask, connect, received, trusting
from material import HOST

IDLE = 1000  # connections that are held open for each protocol
DATA, HEADERS, SETTINGS, END_STREAM = 0, 1, 4, 1


def measure(peer):
    """Its memory before its first request, and what an idle connection adds that has had its answer."""
    base = peer.program.settled_memory()
    told = {"base_kib": base}
    with ExitStack() as held:
        for key, protocol, ask_once in (("connection_kib", "http/1.1", ask), ("h2_connection_kib", "h2", ask_h2)):
            context = trusting(protocol=protocol)
            for _ in range(IDLE):
                stream = held.enter_context(connect(peer.ports["https"], context))
                ask_once(stream, f"{HOST}:{peer.ports['https']}")
            full = peer.program.settled_memory()
            told[key], base = (full - base) / IDLE, full
    return told


def ask_h2(stream, host):
    """One request on stream 1 (RFC 9113): GET, https, then :path and :authority as literals (RFC 7541 section 6.2.2)."""
    head = b"\x82\x87\x04\x03/1k\x01" + bytes([len(host)]) + host.encode()
    frames = frame(SETTINGS) + frame(SETTINGS, flags=1) + frame(HEADERS, head, END_STREAM | 4, 1)
    stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames)
    answer = b""
    while True:
        while len(answer) < 9 or len(answer) < 9 + length(answer):
            answer += received(stream)
        kind, flags = answer[3], answer[4]
        answer = answer[9 + length(answer) :]
        if kind == DATA and flags & END_STREAM:
            return


def frame(kind, payload=b"", flags=0, stream=0):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def length(frame):
    return int.from_bytes(frame[:3], "big")
