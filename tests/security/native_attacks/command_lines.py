"""Reads the command lines of all processes until /workspace/stop is there. Prints those of our launcher, as JSON."""

import json
import os
import sys
from pathlib import Path

Path("/workspace/watching").touch()
seen: set[str] = set()
while not Path("/workspace/stop").exists():
    for name in os.listdir("/proc"):  # noqa: PTH208 - speed is what it is about
        if not name.isdigit():
            continue
        try:
            opened = os.open(f"/proc/{name}/cmdline", os.O_RDONLY)
        except OSError:
            continue
        try:
            # once: what a second read finds, after an execve, is the rest of another program's words
            words = os.read(opened, 1 << 20).split(b"\0")
        except OSError:
            continue
        finally:
            os.close(opened)
        if words[1:2] == [b"enter"]:
            seen.update(word.decode() for word in words[2:] if word)
sys.stdout.write(json.dumps(sorted(seen)))
