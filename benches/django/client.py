"""People: each with a connection of his own, asking now and then."""

import functools
import http.client
import random
import ssl
import threading
import time
from collections import Counter

from parts import FORWARDED, HOST, WORK

PATIENCE = 30  # seconds after which somebody gives up


class Line(http.client.HTTPConnection):
    """A kept connection, over TLS where a proxy is there to end it; made anew when it is closed."""

    def __init__(self, port, tls=True):
        super().__init__("127.0.0.1", port, timeout=PATIENCE)
        self.tls = tls

    def connect(self):
        super().connect()
        if self.tls:
            self.sock = context().wrap_socket(self.sock, server_hostname=HOST)


@functools.cache
def context():
    return ssl.create_default_context(cafile=WORK / "cert.pem")


class People:
    """`count` of them, each asking `rate` times a second, until they are told to stop."""

    def __init__(self, port, count, rate, tls=True, posts=0.0):
        self.port, self.rate, self.tls, self.posts = port, rate, tls, posts
        self.took, self.answers = [], Counter()
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.ask_on, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(2 * PATIENCE)
        return self

    def ask_on(self):
        line, due = Line(self.port, self.tls), time.monotonic() + random.random() / self.rate
        while not self.stopped.wait(max(0, due - time.monotonic())):
            due = begin = max(due, time.monotonic() - 1 / self.rate)
            try:
                answer = self.ask(line)
            except (OSError, http.client.HTTPException) as error:
                answer = type(error).__name__
                line.close()
            self.took.append(time.monotonic() - begin)
            self.answers[answer] += 1
            due += 1 / self.rate

    def ask(self, line):
        is_post = random.random() < self.posts
        method, path, body = ("POST", "/echo", b"x" * 1000) if is_post else ("GET", "/status/200", None)
        line.request(method, path, body, {"Host": HOST} if self.tls else FORWARDED)
        response = line.getresponse()
        response.read()
        return response.status

    @property
    def failed(self):
        return sum(count for answer, count in self.answers.items() if answer != 200)
