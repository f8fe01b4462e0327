"""Who asks the edge in the soak, each at a pace of its own. Whatever is not answered as it should be is a failure, and is told."""

import os
import random
import socket
import ssl
import struct
import threading
import time

from hpack import Decoder, Encoder

NAME = "app.localhost"
PATIENCE = 30  # seconds that an answer may take
EARLY = 0.3  # seconds by which clocks of two processes may be apart


class Cut(Exception):
    """The connection ended. `unanswered`: not one octet of an answer had come."""

    def __init__(self, text, unanswered=False):
        super().__init__(text)
        self.unanswered = unanswered


class Run:
    """What the clients of one process share: where to ask, when to stop, and what they saw. `upgrades` are the moments at
    which the edge was told to go on in another process and at which it did, by turns; `counts` is shared with whoever watches."""

    KINDS = ["h1 requests", "h2 requests", "uploads", "new connections", "WebSocket echoes", "WebSockets ended by grace",
             "h1 sent again", "h2 sent again", "connections"]

    def __init__(self, port, ca, grace, stop, upgrades, counts, failures):
        self.port, self.ca, self.grace, self.stop = port, ca, grace, stop
        self.upgrades, self.counts, self.failures = upgrades, counts, failures
        self.lock = threading.Lock()

    def count(self, kind, number=1):
        with self.lock:
            self.counts[self.KINDS.index(kind)] += number

    def failed(self, kind, why):
        self.failures.put(f"{time.strftime('%H:%M:%S')} {kind}: {why}")

    def connect(self, protocol):
        """A TLS connection that speaks this protocol, verified."""
        self.count("connections")
        raw = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return self.context(protocol).wrap_socket(raw, server_hostname=NAME)
        except BaseException:
            raw.close()
            raise

    def context(self, protocol):
        kept = self.__dict__.setdefault("contexts", {})
        if protocol not in kept:
            kept[protocol] = ssl.create_default_context(cafile=self.ca)
            kept[protocol].set_alpn_protocols([protocol])
        return kept[protocol]

    def was_upgraded(self, since):
        """Whether the process that served then may have come to the end of its grace. It served until the upgrade was done."""
        grace_begun = time.time() - self.grace + EARLY
        pairs = zip(self.upgrades[::2], self.upgrades[1::2])
        return any(0 < told <= grace_begun and (since < done or not done) for told, done in pairs)


class Pace:
    """So many a second, evenly; what was missed is not made up for beyond a second of it."""

    def __init__(self, run, rate):
        self.run, self.step, self.next = run, 1 / rate, time.monotonic() + random.random() / rate

    def wait(self):
        """False when it is time to stop."""
        left = self.next - time.monotonic()
        if left > 0:
            self.run.stop.wait(left) if left > 0.2 else time.sleep(left)
        self.next = max(self.next + self.step, time.monotonic() - 1)
        return not self.run.stop.is_set()


def process(kinds, *shared):
    """A process of clients: (function, rate, arguments) each in a thread."""
    run = Run(*shared)
    threads = [threading.Thread(target=endure, args=(run, client, rate, more)) for client, rate, more in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def endure(run, client, rate, more):
    pace = Pace(run, rate)
    while pace.wait():
        try:
            client(run, pace, *more)
        except (Cut, OSError) as why:
            run.failed(client.__name__, repr(why))


def keep_alive(run, pace, kind, method, body):
    """One connection after the other, each for as long as the edge keeps it. What ends before an octet of an answer, on a connection
    that was used before, is sent again as every client does (RFC 9110 section 9.2.2), and counted."""
    again = False
    while again or pace.wait():
        with run.connect("http/1.1") as tls:
            used = False
            while again or pace.wait():
                try:
                    ended = ask(tls, f"{method} /{kind[0]} HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                except Cut as cut:
                    if not (cut.unanswered and used):
                        raise
                    run.count("h1 sent again")
                    again = True
                    break
                run.count(kind)
                again, used = False, True
                if ended:
                    break


def new_connections(run, pace):
    """A handshake for every request."""
    while pace.wait():
        with run.connect("http/1.1") as tls:
            ask(tls, f"GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
        run.count("new connections")


def ask(tls, request):
    """Sends and reads one answer of a known length; whether the edge closes after it."""
    answer = b""
    try:
        tls.sendall(request)
        while b"\r\n\r\n" not in answer:
            answer += more(tls, answer)
        head, _, body = answer.partition(b"\r\n\r\n")
        fields = head.lower()
        length = int(fields.partition(b"content-length:")[2].split(b"\r\n")[0] or -1)
        if not head.startswith(b"HTTP/1.1 200 ") or length < 0:
            raise Cut(f"answered {head[:300]!r}")
        while len(body) < length:
            body += more(tls, answer)
    except OSError as error:
        raise Cut(repr(error), unanswered=not answer and is_end(error)) from error
    return b"connection: close" in fields


def more(tls, answer):
    block = tls.recv(65536)
    if not block:
        raise Cut(f"ended after {answer[:200]!r}", unanswered=not answer)
    return block


def is_end(error):
    return isinstance(error, (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError, ssl.SSLZeroReturnError))


# HTTP/2 (RFC 9113): types and flags of frames.
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def over_h2(run, pace, at_once):
    """One connection after the other, so many streams at once. A stream that the edge says it has not begun (section 6.8) is asked
    again on the next one, and counted."""
    left = 0
    while left or pace.wait():
        with run.connect("h2") as tls:
            connection = Connection(tls)
            while connection.open and (left or pace.wait()):
                left = connection.ask(left or at_once, run)
                run.count("h2 sent again", left)
                if left and connection.open:
                    raise Cut("streams were refused on a connection that goes on")


class Connection:
    """As little of HTTP/2 as asking takes."""

    def __init__(self, tls):
        self.tls, self.buffer, self.next = tls, b"", 1
        self.open, self.encoder, self.decoder = True, Encoder(), Decoder()
        tls.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)))

    def ask(self, count, run):
        """Asks so many times at once, and reads until all is answered; how many the edge did not begin."""
        head = [(":method", "GET"), (":scheme", "https"), (":authority", NAME), (":path", "/h2")]
        numbers = range(self.next, self.next + 2 * count, 2)
        self.next += 2 * count
        waiting = {number: None for number in numbers}
        request = b"".join(frame(HEADERS, END_STREAM | END_HEADERS, number, self.encoder.encode(head)) for number in numbers)
        self.say(request)
        refused = 0
        while waiting:
            try:
                kind, flags, number, payload = self.read()
            except (Cut, OSError) as error:
                raise Cut(f"{len(waiting)} of {count} streams without an answer: {error!r}; told to go: {not self.open}") from error
            if kind == GOAWAY:
                last, code = struct.unpack(">II", payload[:8])
                if code:
                    raise Cut(f"GOAWAY, code {code}")
                self.open = False
                refused += sum(waiting.pop(number, 1) is None for number in list(waiting) if number > last)
            elif kind == HEADERS:
                waiting[number] = dict(self.decoder.decode(payload)).get(":status")
                if waiting[number] != "200":
                    raise Cut(f"answered {waiting[number]}")
            elif kind == RST_STREAM:
                raise Cut(f"stream reset, code {struct.unpack('>I', payload)[0]}")
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                del waiting[number]
                run.count("h2 requests")
        return refused

    def read(self):
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3]):
            self.buffer += more(self.tls, self.buffer)
        length, kind, flags = int.from_bytes(self.buffer[:3]), self.buffer[3], self.buffer[4]
        number, payload = int.from_bytes(self.buffer[5:9]) & 0x7FFFFFFF, self.buffer[9 : 9 + length]
        self.buffer = self.buffer[9 + length :]
        if kind in (SETTINGS, PING) and not flags & ACK:
            self.say(frame(kind, ACK, 0, payload if kind == PING else b""))
        if kind == DATA and length:
            self.say(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", length)))
        return kind, flags, number, payload

    def say(self, octets):
        """What the edge need not hear: it may have said all and closed, and what it said is still to be read."""
        try:
            self.tls.sendall(octets)
        except OSError as error:
            if not is_end(error):
                raise


def frame(kind, flags, number, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big") + payload


def websockets(run, pace, count):
    """So many sockets that live: each is spoken to in turn, and may end by nothing but the end of grace after an upgrade."""
    sockets = [WebSocket(run) for _ in range(count)]
    turn = 0
    try:
        while pace.wait():
            turn = (turn + 1) % count
            try:
                sockets[turn].echo()
                run.count("WebSocket echoes")
            except (Cut, OSError) as why:
                sockets[turn].tls.close()
                if run.was_upgraded(sockets[turn].since):
                    run.count("WebSockets ended by grace")
                else:
                    run.failed("a WebSocket", f"ended after {time.time() - sockets[turn].since:.1f} s: {why!r}")
                sockets[turn] = WebSocket(run)
    finally:
        for one in sockets:
            one.tls.close()


class WebSocket:
    """One that was opened, and since when."""

    def __init__(self, run):
        # Before the edge can have answered: an upgrade in between ends it too.
        self.since = time.time()
        self.tls = run.connect("http/1.1")
        self.tls.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {NAME}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += more(self.tls, head)
        if not head.startswith(b"HTTP/1.1 101 "):
            raise Cut(f"answered {head[:300]!r}")

    def echo(self):
        said, mask = os.urandom(8).hex().encode(), os.urandom(4)
        masked = bytes(octet ^ mask[at % 4] for at, octet in enumerate(said))
        self.tls.sendall(bytes([0x81, 0x80 | len(said)]) + mask + masked)
        heard = b""
        while len(heard) < 2 + len(said):
            heard += more(self.tls, heard)
        if heard != bytes([0x81, len(said)]) + said:
            raise Cut(f"said {said!r}, heard {heard!r}")
