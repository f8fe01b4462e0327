"""A CA for the demo: pebble, which proves names as Let's Encrypt does, with a DNS of its own that says 127.0.0.1."""

import json
import shutil
import subprocess
import time
from pathlib import Path

PATIENCE = 30  # seconds that the CA may take to come up


class Pebble:
    """Its files, its ports, and the commands that start it. Like every pebble it forgets all that it issued."""

    def __init__(self, root, folder, port, http, https):
        self.bin, self.folder = root / "build" / "pebble" / "usr" / "bin", folder
        self.listen, self.management, self.names, self.names_management = (port() for _ in range(4))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.api, self.root = folder / "api-ca.pem", folder / "root.pem"
        self._certify()
        self._configure(http, https)

    def dns(self):
        off = [part for name in ("http01", "https01", "tlsalpn01", "doh", "defaultIPv6") for part in (f"-{name}", "")]
        listen = ["-dnsserver", f"127.0.0.1:{self.names}", "-management", f"127.0.0.1:{self.names_management}"]
        return [self.bin / "pebble-challtestsrv", *listen, *off]

    def command(self):
        config = self.folder / "pebble.json"
        return [self.bin / "pebble", "-strict", "-config", config, "-dnsserver", f"127.0.0.1:{self.names}"]

    def table(self):
        """`[acme]`, for the edge's file."""
        return f'[acme]\ndirectory = "https://127.0.0.1:{self.listen}/dir"\nca_root = "{self.api}"\nprofile = "default"\n'

    def write_root(self):
        """What it issues with, new at each start."""
        deadline = time.monotonic() + PATIENCE
        url = f"https://127.0.0.1:{self.management}/roots/0"
        while subprocess.call(["curl", "-sf", "--cacert", self.api, "-o", self.root, url]) != 0:
            if time.monotonic() > deadline:
                raise TimeoutError(f"pebble does not answer at {url}")
            time.sleep(0.1)

    def _certify(self):
        """The certificate of its API, and the CA behind that."""
        def openssl(*arguments):
            subprocess.run(["openssl", *map(str, arguments)], check=True, cwd=self.folder, capture_output=True)
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30")
        openssl("req", "-x509", *key, "-subj", "/CN=demo API CA", "-keyout", "api-ca.key", "-out", self.api)
        openssl("req", "-x509", *key, "-subj", "/CN=pebble", "-keyout", "api.key", "-out", "api.pem", "-CA", self.api,
                "-CAkey", "api-ca.key", "-addext", "subjectAltName=IP:127.0.0.1",
                "-addext", "basicConstraints=critical,CA:FALSE")

    def _configure(self, http, https):
        config = {
            "listenAddress": f"127.0.0.1:{self.listen}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(self.folder / "api.pem"),
            "privateKey": str(self.folder / "api.key"),
            "httpPort": http,
            "tlsPort": https,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
            "keyAlgorithm": "ecdsa",
            "profiles": {"default": {"description": "three months", "validityPeriod": 7776000}},
        }
        (self.folder / "pebble.json").write_text(json.dumps({"pebble": config}))
