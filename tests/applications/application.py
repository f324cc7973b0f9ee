"""What the scripts here have in common. Arguments of each: port of Freshet, port of its cache."""

import importlib.metadata
import sys
import time

port, cache_port = int(sys.argv[1]), int(sys.argv[2])


def version(package):
    print(f"version: {importlib.metadata.version(package)}", flush=True)


def works(what):
    """Says what has been seen to work."""
    print(f"works: {what}", flush=True)


def until(what, check):
    """Waits until `check` says something that is true."""
    deadline = time.monotonic() + 90
    while not (found := check()):
        assert time.monotonic() < deadline, f"{what}: not in time"
        time.sleep(0.02)
    return found
