"""An older client of E2B's beside the installed one, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

from tests.testbed.components import cache_folder

VERSION = "2.20.0"


def older_client() -> Path:
    """The folder that holds e2b 2.20.0 and what it needs; installed once, by pip. Skips the test where that is not
    possible; with CI=true it fails."""
    folder = cache_folder() / f"e2b-{VERSION}"
    if folder.is_dir():
        return folder
    fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(fresh), f"e2b=={VERSION}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        shutil.rmtree(fresh, ignore_errors=True)
        message = f"missing: e2b {VERSION} ({done.stderr.strip().splitlines()[-1:]})"
        if os.environ.get("CI") == "true":
            raise AssertionError(message)
        raise unittest.SkipTest(message)
    try:
        fresh.rename(folder)
    except OSError:  # another run was faster
        shutil.rmtree(fresh)
    return folder
