"""`make smoke-remote`: on a host of the testbed, and on one that is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testbed.components import need
from tests.testbed.engines import Podman
from tests.testbed.hosts import ComposeHost, need_kind
from tests.testbed.image import BASE

pytestmark = pytest.mark.engines
_SMOKE = Path(__file__).parents[2] / "scripts" / "smoke_remote"


def smoke(**more: str) -> subprocess.CompletedProcess[str]:
    """Run it."""
    env = {name: value for name, value in os.environ.items() if name != "SANDBOXER_HOST"}
    words = [sys.executable, str(_SMOKE)]
    return subprocess.run(
        words,
        env={**env, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=170,
    )


def test_without_a_host_it_makes_one() -> None:
    need_kind("docker compose")
    done = smoke()
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("all is well, and nothing is left\n")


def test_on_a_host_that_is_named_it_says_what_failed(tmp_path: Path) -> None:
    need("podman-compose")
    with Podman() as engine, ComposeHost(tmp_path / "host", "podman-compose", engine) as host:
        engine.build_base()
        (tmp_path / "config.yaml").write_text(
            json.dumps({"hosts": {host.name: {**host.config, "compose": host.compose}}})
        )
        known = {"SANDBOXER_HOST": host.name, "SANDBOXER_CONFIG_DIR": str(tmp_path), "SANDBOXER_SMOKE_IMAGE": BASE}
        done = smoke(**known)
        assert done.returncode == 0, done.stdout
        done = smoke(**{**known, "SANDBOXER_SMOKE_IMAGE": "docker.io/library/nothing:1"})
        assert done.returncode == 1
        assert "smoke: that ended with" in done.stdout
