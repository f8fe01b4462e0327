"""What the runs are made of, under build/bench: bodies and certificates."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

from peers import WORK

HOST, RSA_HOST = "bench.example", "rsa.bench.example"
SIZES = {"1k": 1 << 10, "10k": 10 << 10, "100k": 100 << 10, "1m": 1 << 20, "10m": 10 << 20}


def make():
    make_bodies()
    make_certificate()
    make_chain()


def make_bodies():
    bodies = WORK / "bodies"
    bodies.mkdir(parents=True, exist_ok=True)
    for name, size in SIZES.items():
        (bodies / name).write_bytes(body(size))


def body(size):
    return bytes(range(256)) * (size // 256)


def make_certificate():
    """P-256, the same for all."""
    self_signed(HOST, "key.pem", "cert.pem")
    (WORK / "both.pem").write_text((WORK / "cert.pem").read_text() + (WORK / "key.pem").read_text())


def make_chain():
    """RSA of 2,048 bits: a leaf and its intermediate are sent, the root is the client's."""
    signed("rsa-root", "/CN=bench root", None, "basicConstraints=critical,CA:TRUE")
    signed("rsa-middle", "/CN=bench intermediate", "rsa-root", "basicConstraints=critical,CA:TRUE")
    signed("rsa-leaf", f"/CN={RSA_HOST}", "rsa-middle", f"subjectAltName=DNS:{RSA_HOST}")
    chain = (WORK / "rsa-leaf.pem").read_text() + (WORK / "rsa-middle.pem").read_text()
    (WORK / "rsa.pem").write_text(chain)
    (WORK / "rsa-both.pem").write_text(chain + (WORK / "rsa-leaf.key").read_text())


def signed(name, subject, by, extension):
    new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", subject, "-addext", extension]
    ca = ["-CA", WORK / f"{by}.pem", "-CAkey", WORK / f"{by}.key"] if by else []
    # The machine's own openssl.cnf would add that the leaf is a CA.
    openssl(*new, "-config", empty(), *ca, "-keyout", WORK / f"{name}.key", "-out", WORK / f"{name}.pem")


def empty():
    path = WORK / "openssl.cnf"
    path.write_text("[req]\ndistinguished_name = dn\n[dn]\n")
    return path


def self_signed(host, key, cert, days=30):
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", days]
    openssl(*new, "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}", "-keyout", WORK / key, "-out", WORK / cert)


def openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def site_names(count):
    return [f"s{number:05}.{HOST}" for number in range(count)]


def make_sites(count):
    """A key and a certificate for each of so many sites, in one file a site: made once, and then kept."""
    (WORK / "sites").mkdir(exist_ok=True)
    missing = [name for name in site_names(count) if not (WORK / "sites" / f"{name}.pem").exists()]
    if missing:
        print(f"{len(missing)} certificates into {WORK / 'sites'}, once", flush=True)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as some:
            list(some.map(make_site, missing))


def make_site(name):
    whole, new = f"sites/{name}.pem", f"sites/{name}.new"
    self_signed(name, new, new, days=3650)
    (WORK / new).rename(WORK / whole)
