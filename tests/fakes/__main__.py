"""A fake cloud by hand.

    eval "$(python -m tests.fakes e2b --port 8900 --background)"   # or without, in a terminal of its own
    sandboxer create --profile profile.e2b-burst

It prints what to set in the environment and an empty line, then serves until it is ended (Ctrl-C, SIGTERM), and
removes what was made."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Sequence

from tests.fakes import CLOUDS, Cloud


def open_cloud(name: str, *, port: int = 0, latency: float = 0.0) -> Cloud:
    """A fake by its name in `CLOUDS`, not started yet."""
    module, _, made = CLOUDS[name].partition(":")
    cloud: Cloud = getattr(importlib.import_module(module), made)(port=port, latency=latency)
    return cloud


def main(words: Sequence[str] | None = None) -> int:
    """Serve one fake; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fakes", description=__doc__.splitlines()[0])
    parser.add_argument("cloud", choices=sorted(CLOUDS))
    parser.add_argument("--port", type=int, default=0, help="where to listen on 127.0.0.1 (default: any free port)")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="added to every answer")
    parser.add_argument("--background", action="store_true", help="go on in the background; its pid is printed too")
    asked = parser.parse_args(words)
    if asked.background and not _in_background():
        return 0
    ending = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ending.set())
    cloud = open_cloud(asked.cloud, port=asked.port, latency=asked.latency).start()
    try:
        lines = [f"export {name}={shlex.quote(value)}" for name, value in cloud.environment().items()]
        lines += [f"export FAKE_CLOUD_PID={os.getpid()}"] if asked.background else []
        sys.stdout.write("".join(f"{line}\n" for line in [*lines, ""]))
        sys.stdout.flush()
        if asked.background:
            # whoever reads our outputs waits for their end
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):
                os.dup2(nowhere, descriptor)
        ending.wait()
    finally:
        cloud.stop()
    return 0


def _in_background() -> bool:
    """Fork; whether this is the process that goes on."""
    if os.fork():
        return False
    os.setsid()
    return True


if __name__ == "__main__":
    raise SystemExit(main())
