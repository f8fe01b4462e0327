"""The loads: each is one run of a row against a peer, and gives the proxy's own processor time and what the client saw."""

import json
import re
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from material import HOST, SIZES, body
from peers import WORK, command

AT_ONCE = 8  # resumed handshakes
MESSAGE = body(SIZES["1k"])


def h2load(row, peer):
    output = WORK / "h2load.json"
    before = peer.program.cpu()
    told = subprocess.run(h2load_line(row, peer, output), capture_output=True, text=True).stdout
    spent = peer.program.cpu() - before
    seen = json.loads(output.read_text())["measurements"]
    check(row, peer, told, seen)
    requests = seen["performance"]["request"]["samples"] if row.latency else []
    figures = {"cpu_us": spent / row.requests, "seconds": seen["duration"]}
    return figures | {f"p{share}_us": percentile(requests, share) for share in (50, 99, 99.9) if requests}


def h2load_line(row, peer, output, host=None):
    plain = peer.kind == "relay" or row.port == "forward"
    port, host = peer.ports["https" if peer.kind == "relay" else row.port], host or row.host
    target = [f"--connect-to=127.0.0.1:{port}", f"{'http' if plain else 'https'}://{host}:{port}/{row.path}"]
    cipher = "--tls13-ciphers=TLS_AES_128_GCM_SHA256"
    return command("usr/bin/h2load", f"-n{row.requests}", *row.options, cipher, f"--output-file={output}", *target)


def check(row, peer, told, seen):
    """A run counts when every request was answered with 200, and every handshake was a full one in the row's group."""
    group = re.search(r"Negotiated Group: (\S+)", told)
    good = seen["status_codes"]["2xx"] == row.requests and "Resumption: yes" not in told
    if not good or row.group and (not group or group[1].lower() != row.group.lower()):
        failed(row, peer, f"h2load says:\n{told[-3000:]}")


def failed(row, peer, why):
    sys.exit(f"bench: {peer.label} did not do all of “{row.name}”: {why}")


def percentile(samples, share):
    """The sample (given in seconds) below which `share` percent lie, in microseconds."""
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * share / 100))] * 1e6


def trusting(root="cert.pem", protocol="http/1.1"):
    context = ssl.create_default_context(cafile=WORK / root)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([protocol])
    return context


def connect(port, context, host=HOST, session=None, source=None):
    plain = socket.create_connection(("127.0.0.1", port), source_address=source)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(plain, server_hostname=host, session=session)


def ask(stream, host=HOST, path="1k"):
    """One request over HTTP/1.1; whatever is not a 200 with the whole body ends all."""
    stream.sendall(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < SIZES[path]:
        answer += received(stream)
    head, _, content = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 ") or content != body(SIZES[path]):
        sys.exit(f"bench: {host} was not answered as it should be: {head[:200]}")


def received(stream):
    piece = stream.recv(65536)
    if not piece:
        sys.exit("bench: a connection was closed before its answer")
    return piece


def resumed(row, peer):
    """Connections that each resume the session of the one before with a ticket that is used once, some chains at once."""
    contexts = [trusting() for _ in range(AT_ONCE)]
    sessions = [one_more(peer, context, None)[0] for context in contexts]
    before, began = peer.program.cpu(), time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as some:
        chains = some.map(lambda chain: resume(peer, *chain, row.requests // AT_ONCE), zip(contexts, sessions))
        if not all(chains):
            failed(row, peer, "not every session was resumed")
    spent = peer.program.cpu() - before
    return {"cpu_us": spent / (row.requests // AT_ONCE * AT_ONCE), "seconds": time.monotonic() - began}


def resume(peer, context, session, count):
    every = True
    for _ in range(count):
        session, reused = one_more(peer, context, session)
        every = every and reused
    return every


def one_more(peer, context, session):
    """A connection, its request, the session that it leaves, and whether it resumed one."""
    with connect(peer.ports["https"], context, session=session) as stream:
        ask(stream)
        return stream.session, stream.session_reused


def echoes(row, peer):
    """Messages over WebSockets, one on its way on each; opening them is not counted."""
    count, context = row.requests // row.connections, trusting()
    with ExitStack() as opened:
        streams = [opened.enter_context(websocket(row, peer, context)) for _ in range(row.connections)]
        before, began = peer.program.cpu(), time.monotonic()
        for number in range(count):
            for stream in streams:
                stream.sendall(message(number))
            for stream in streams:
                if read(stream, 4 + len(MESSAGE)) != b"\x82\x7e" + len(MESSAGE).to_bytes(2, "big") + MESSAGE:
                    failed(row, peer, "a message came back as another")
        spent = peer.program.cpu() - before
    return {"cpu_us": spent / (count * row.connections), "seconds": time.monotonic() - began}


def websocket(row, peer, context):
    stream = connect(peer.ports["https"], context)
    wanted = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    stream.sendall(f"GET /{row.path} HTTP/1.1\r\nHost: {HOST}\r\n{wanted}dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += read(stream, 1)
    if not head.startswith(b"HTTP/1.1 101 ") or b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" not in head:
        failed(row, peer, f"no WebSocket was opened: {head[:300]}")
    return stream


def message(number):
    """A binary message as a client sends it (RFC 6455 section 5.2), each with another mask."""
    mask = (number * 0x9E3779B1 & 0xFFFFFFFF).to_bytes(4, "big")
    return b"\x82\xfe" + len(MESSAGE).to_bytes(2, "big") + mask + masked(MESSAGE, mask)


def masked(content, mask):
    whole = int.from_bytes(mask * (len(content) // 4), "big")
    return (int.from_bytes(content, "big") ^ whole).to_bytes(len(content), "big")


def read(stream, count):
    content = b""
    while len(content) < count:
        piece = stream.recv(count - len(content))
        if not piece:
            sys.exit("bench: a connection was closed before its answer")
        content += piece
    return content
