"""A headless Chromium, spoken to by its DevTools protocol: pages are opened, asked, and looked at as pictures."""

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from websockets.sync.client import connect

PATIENCE = 60  # seconds that the browser may take for one thing


class Browser:
    """One Chromium with a profile of its own, which goes with it. `ca` is trusted beside the roots that it ships with."""

    def __init__(self, ca=None):
        self.home = Path(tempfile.mkdtemp(prefix="vestibule-browser-"))
        if ca:
            trust(self.home, ca)
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8"}
        self.process = subprocess.Popen(command(self.home), stderr=subprocess.PIPE, text=True, env=environment)
        try:
            self.socket = connect(devtools(self.process), max_size=None, compression=None, open_timeout=PATIENCE)
        except BaseException:
            self.__exit__()
            raise
        self.number, self.events = 0, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(PATIENCE)
        shutil.rmtree(self.home, ignore_errors=True)

    def page(self, **media):
        """A blank page. See Page."""
        return Page(self, **media)

    def send(self, method, session=None, **parameters):
        """Asks the browser, keeps what it says meanwhile, and returns its answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        self.socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            told = self.receive()
            if told.get("id") == self.number:
                if "error" in told:
                    raise RuntimeError(f"{method}: {told['error']['message']}")
                return told["result"]

    def receive(self):
        told = json.loads(self.socket.recv(timeout=PATIENCE))
        if "method" in told:
            self.events.append(told)
        return told


class Page:
    """A tab of so many CSS pixels, light or dark, with a mouse or a finger."""

    def __init__(self, browser, width=1280, height=900, dark=False, phone=False):
        self.browser, self.width, self.height = browser, width, height
        self.scale = 2 if phone else 1
        target = browser.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self.send(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.phone = phone
        self.resize(height)

    def send(self, method, **parameters):
        return self.browser.send(method, self.session, **parameters)

    def resize(self, height):
        self.send("Emulation.setDeviceMetricsOverride", width=self.width, height=height,
                  deviceScaleFactor=self.scale, mobile=self.phone)

    def open(self, url):
        """Loads it, until all that belongs to it is there."""
        before = len(self.browser.events)
        failed = self.send("Page.navigate", url=url).get("errorText")
        if failed:
            raise RuntimeError(f"{url}: {failed}")
        while not any(self.is_mine(event, "Page.loadEventFired") for event in self.browser.events[before:]):
            self.browser.receive()
        return self

    def run(self, script):
        """What a script says, awaited. The page's own policy does not hold for it."""
        told = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in told:
            details = told["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description") or details["text"])
        return told["result"].get("value")

    def complaints(self):
        """Whatever the console would show in red or yellow, exceptions and broken policies among it."""
        return [text for event in self.browser.events if (text := self.complaint(event))]

    def complaint(self, event):
        told = event["params"]
        if self.is_mine(event, "Log.entryAdded") and told["entry"]["level"] in ("error", "warning"):
            return told["entry"]["text"]
        if self.is_mine(event, "Runtime.exceptionThrown"):
            return told["exceptionDetails"].get("exception", {}).get("description", "an exception")
        if self.is_mine(event, "Runtime.consoleAPICalled") and told["type"] in ("error", "warning", "assert"):
            return json.dumps(told["args"])
        if self.is_mine(event, "Audits.issueAdded"):
            return json.dumps(told["issue"])
        return None

    def is_mine(self, event, method):
        return event["method"] == method and event.get("sessionId") == self.session

    def picture(self, path):
        """The whole page, from top to bottom, as a PNG."""
        self.resize(self.run("document.documentElement.scrollHeight"))
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        self.resize(self.height)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(shot))


def command(home):
    program = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    options = ["--headless=new", "--remote-debugging-port=0", f"--user-data-dir={home}/profile", "--no-first-run",
               "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-proxy-server",
               "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    # Chromium's own sandbox refuses to run as root.
    return [program, *options, *(["--no-sandbox"] if os.geteuid() == 0 else []), "about:blank"]


def devtools(process):
    seen = []
    for line in process.stderr:
        seen.append(line)
        if found := re.search(r"DevTools listening on (ws://\S+)", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()  # a full pipe would hold it up
            return found.group(1)
    raise RuntimeError("Chromium did not come up: " + "".join(seen)[-2000:])


def trust(home, ca):
    """Where Chromium looks for roots of a user's own."""
    store = home / ".pki" / "nssdb"
    store.mkdir(parents=True)
    for arguments in (["-N", "--empty-password"], ["-A", "-t", "C,,", "-n", "vestibule", "-i", str(ca)]):
        subprocess.run(["certutil", "-d", f"sql:{store}", *arguments], check=True, capture_output=True)
