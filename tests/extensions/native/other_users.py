"""Running some of these tests again as an ordinary user, or on a machine whose bubblewrap is another one.

A mount namespace of our own shows the interpreter, the packages and the repository where everybody can read them (a
checkout or a Python below root's home could not be used otherwise), and other programs in the place of the machine's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
USER = 61234
"""A uid that nobody has."""

_SCRIPT = """
set -e
uid=$1 home=$2; shift 2
mount -t tmpfs -o mode=755 none /mnt
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mkdir -p "$2"; elif [ ! -e "$2" ]; then : >"$2"; fi
  mount --rbind "$1" "$2"; shift 2
done
shift
mkdir /mnt/home && chown "$uid" /mnt/home "$home"
cd /mnt/repository
[ "$uid" = 0 ] || exec setpriv --reuid "$uid" --regid "$uid" --clear-groups "$@"
exec "$@"
"""


def run_tests(
    tests: Sequence[str],
    directory: Path,
    *,
    uid: int = USER,
    masks: Mapping[str, Path] | None = None,
    folder: Path = Path(__file__).parent,
    seconds: float = 150,
) -> subprocess.CompletedProcess[str]:
    """Run tests of a folder with pytest; `directory` is a fresh one for their files, `masks` lay programs of ours
    (values) over those of the machine (keys)."""
    places = {
        sys.base_prefix: "/mnt/python",
        sysconfig.get_path("purelib"): "/mnt/packages",
        str(REPOSITORY): "/mnt/repository",
        str(directory): "/mnt/files",
        **{str(ours): path for path, ours in (masks or {}).items()},
    }
    python = f"/mnt/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/mnt/home",
        "LANG": "C.UTF-8",
        "PYTHONHOME": "/mnt/python",
        "PYTHONPATH": "/mnt/repository/src:/mnt/packages",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # most of a short run's time
        "LD_LIBRARY_PATH": "/mnt/python/lib",
    }
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT, "sh", str(uid), str(directory)]
    words += [word for pair in places.items() for word in pair]
    words += [
        "--",
        python,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "pytest_timeout",
        "--basetemp=/mnt/files/t",
        "--timeout=120",
    ]
    words += [str(folder.relative_to(REPOSITORY) / test) for test in tests]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
