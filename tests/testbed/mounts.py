"""Mounts of this machine by path."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path


def mentioning(words: Iterable[str]) -> list[str]:
    """Mount points, deepest first, whose line of the mount table has one of the words."""
    wanted = list(words)
    lines = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if any(w in line for w in wanted)]
    points = [_unescape(line.split()[4]) for line in lines]
    return sorted(points, key=lambda point: (-point.count("/"), point))


def detach(root: Path) -> None:
    """Unmount all that is mounted below `root`."""
    for point in mentioning([f" {root}/"]):
        detach_point(point)


def detach_point(point: str) -> None:
    """Unmount this, now or as soon as nobody uses it."""
    subprocess.run(["umount", "-l", point], check=False, capture_output=True)


def _unescape(point: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)
