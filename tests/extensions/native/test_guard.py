"""The guard's committed images, and what stands behind them."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from sandboxer.errors import NotConfigured
from sandboxer.extensions.native import guard

FOLDER = Path(guard.__file__).parent
COMPILER = "12.2.0"
"""gcc of Debian 12: another one makes other bytes."""


@pytest.mark.parametrize("machine", guard.MACHINES)
def test_each_committed_image_is_what_its_source_makes(tmp_path: Path, machine: str) -> None:
    compiler = f"{machine}-linux-gnu-gcc"
    try:
        version = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip(f"there is no {compiler}")
    if version.strip() != COMPILER:
        pytest.skip(f"{compiler} is {version.strip()}, and the images are made by {COMPILER}")
    environ = {**os.environ, "MACHINES": machine}
    subprocess.run([FOLDER / "build", tmp_path], check=True, env=environ)
    name = f"guard-{machine}"
    assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), "run guard/build, and commit what it makes"


@pytest.mark.parametrize("machine", guard.MACHINES)
def test_an_image_needs_nothing_of_the_host_and_is_small(machine: str) -> None:
    image = (files("sandboxer.extensions.native.guard") / f"guard-{machine}").read_bytes()
    assert image[:4] == b"\x7fELF"
    assert len(image) < 20_000
    assert b"ld-linux" not in image
    assert b"/work/" not in image


def test_the_filter_stands_behind_the_image_with_its_length() -> None:
    bundle = guard.bundle("x86_64", b"\x06\x00\x00\x00\x00\x00\xff\x7f")
    assert bundle.endswith(b"\x06\x00\x00\x00\x00\x00\xff\x7f" + (8).to_bytes(8, "little") + b"SBXSEBG1")
    magic = re.search(r"#define MAGIC 0x([0-9a-f]{16})UL", (FOLDER / "guard.c").read_text())
    assert magic is not None
    assert bytes.fromhex(magic[1])[::-1] == b"SBXSEBG1"


def test_a_machine_without_an_image_is_refused_with_what_to_use_instead() -> None:
    with pytest.raises(NotConfigured, match="'riscv64'") as caught:
        guard.bundle("riscv64", b"")
    assert "x86_64" in caught.value.hint


@pytest.mark.skipif(platform.machine() not in guard.MACHINES, reason="there is no guard for this machine")
def test_the_guard_does_nothing_for_who_starts_it_by_hand(tmp_path: Path) -> None:
    image = tmp_path / "guard"
    image.write_bytes(guard.bundle(platform.machine(), b""))
    image.chmod(0o755)
    for words in ([], ["x"], ["enter"], ["enter", "t", "1", "1", "0", "-"], ["init", "--"], ["hold"]):
        done = subprocess.run([image, *words], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
        assert (done.returncode, done.stdout) == (125, b"")
