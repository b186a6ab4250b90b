"""Reads the command lines of all processes until /workspace/stop is there. Prints those of our launcher, as JSON."""

import json
import os
import sys
from pathlib import Path

Path("/workspace/watching").touch()
seen: set[str] = set()
while not Path("/workspace/stop").exists():
    for name in os.listdir("/proc"):  # noqa: PTH208 - speed is what it is about
        try:
            line = Path("/proc", name, "cmdline").read_bytes() if name.isdigit() else b""
        except OSError:
            continue
        words = line.split(b"\0")
        if words[1:2] == [b"enter"]:
            seen.update(word.decode() for word in words[2:] if word)
sys.stdout.write(json.dumps(sorted(seen)))
