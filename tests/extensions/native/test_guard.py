"""The guard's committed images, and what stands behind them."""

from __future__ import annotations

import os
import platform
import random
import re
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from sandboxer.errors import NotConfigured
from sandboxer.extensions.native import guard
from sandboxer.extensions.native.exec import header
from tests.testbed.components import need

FOLDER = Path(guard.__file__).parent
HERE = platform.machine()
COMPILER = "12.2.0"
"""gcc of Debian 12: another one makes other bytes."""


@pytest.mark.parametrize("machine", guard.MACHINES)
def test_each_committed_image_is_what_its_source_makes(tmp_path: Path, machine: str) -> None:
    compiler = f"{machine}-linux-gnu-gcc"
    need(compiler)
    version = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=True).stdout
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


@pytest.mark.skipif(HERE not in guard.MACHINES, reason="there is no guard for this machine")
def test_the_guard_does_nothing_for_who_starts_it_by_hand(tmp_path: Path) -> None:
    image = tmp_path / "guard"
    image.write_bytes(guard.bundle(HERE, b""))
    image.chmod(0o755)
    for words in ([], ["x"], ["enter"], ["enter", "t", "1", "1", "0", "-"], ["init", "--"], ["hold"]):
        done = subprocess.run([image, *words], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
        assert (done.returncode, done.stdout) == (125, b"")


@pytest.mark.skipif(HERE not in guard.MACHINES, reason="there is no guard for this machine")
def test_no_header_however_broken_makes_the_guard_do_anything_but_refuse(tmp_path: Path) -> None:
    """It reads them outside, before it gives up anything: lengths that lie, counts that lie, ends in the middle."""
    image = tmp_path / "guard"
    image.write_bytes(guard.bundle(HERE, b""))
    image.chmod(0o755)
    whole = header(["true"], env={"A": "b"}, cwd="/")
    broken = [whole[:at] for at in range(len(whole))]
    for body in (b"/\09\0x\0", b"/\01\0A=b\0", b"/\099999999999999999999\0x\0", b"/\0-1\0x\0", b"\0\0\0", b"x"):
        broken.append(f"{len(body)}\n".encode() + body)
    broken += [b"\n", b"0\n", b"999999999\n", b"9999999999\n", b"-1\n", b"12x\n", b"\xff" * 64]
    chance = random.Random(6)  # noqa: S311 - the same ones each time
    for _ in range(150):
        mutated = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            mutated[chance.randrange(len(mutated))] = chance.randrange(256)
        broken.append(bytes(mutated))
    # a whole one is refused too: process 1 did not start when this says
    words = [str(image), "enter", "token ", "1", "123456789012", str(os.geteuid()), "-"]
    for given in [*broken, whole]:
        done = subprocess.run(words, input=given, capture_output=True, check=False, timeout=60)
        assert (done.returncode, done.stdout) == (125, b""), given
        assert done.stderr.startswith(b"token "), given
