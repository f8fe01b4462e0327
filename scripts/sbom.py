"""Writes what a release is made of, as a CycloneDX 1.5 JSON document, to standard output: the crates that are built in,
with their versions, checksums and licences. Takes the output of `cargo metadata` on standard input, and Cargo.lock."""

import json
import sys
import tomllib


def main():
    metadata = json.load(sys.stdin)
    with open(sys.argv[1], "rb") as lock:
        locked = tomllib.load(lock)["package"]
    sums = {(one["name"], one["version"]): one.get("checksum") for one in locked}
    packages = {one["id"]: one for one in metadata["packages"]}
    root = metadata["resolve"]["root"]
    used = built_in(metadata["resolve"]["nodes"], root)
    components = [component(packages[one], sums) for one in sorted(used - {root})]
    about = {"component": component(packages[root], sums, "application")}
    document = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "metadata": about, "components": components}
    json.dump(document, sys.stdout, indent=1)


def built_in(nodes, root):
    """The crates that are linked: neither tests' nor build scripts' own."""
    needs = {node["id"]: [one["pkg"] for one in node["deps"] if is_linked(one)] for node in nodes}
    seen, waiting = set(), [root]
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting.extend(needs[one])
    return seen


def is_linked(dependency):
    return any(kind["kind"] is None for kind in dependency["dep_kinds"])


def component(package, sums, kind="library"):
    name, version = package["name"], package["version"]
    found = {"type": kind, "name": name, "version": version, "purl": f"pkg:cargo/{name}@{version}"}
    if package.get("license"):
        # Old manifests write a slash for OR.
        found["licenses"] = [{"expression": package["license"].replace("/", " OR ").replace("  OR  ", " OR ")}]
    if checksum := sums.get((name, version)):
        found["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return found


if __name__ == "__main__":
    main()
