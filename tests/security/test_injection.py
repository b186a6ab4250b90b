"""Promise 24: hostile strings in every input field are refused, or passed on byte for byte; nothing is executed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandboxer.bootstrap import Installation
from sandboxer.errors import SandboxerError
from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Streams
from sandboxer.models import Request
from sandboxer.names import parse_pairs
from sandboxer.timing import parse_duration
from tests.installations import create, installed
from tests.security.hostile import SEEDS, hostile
from tests.sizes import scaled

COUNT = scaled(1500, soak=20_000)
FIELDS: dict[str, Callable[[Installation, str], object]] = {
    "profile": lambda here, text: here.manager.plan(Request(profile=text)),
    "input name": lambda here, text: here.manager.plan(Request(profile="profile.fake", inputs={text: "x"})),
    "input": lambda here, text: here.manager.plan(Request(profile="profile.fake", inputs={"greeting": text})),
    "path": lambda here, text: here.manager.plan(Request(profile="profile.fake", inputs={"tree": text})),
    "host": lambda here, text: here.manager.plan(Request(profile="profile.fake", host=text)),
    "name": lambda here, text: here.manager.plan(Request(profile="profile.fake", name=text)),
    "label key": lambda here, text: here.manager.plan(Request(profile="profile.fake", labels={text: "x"})),
    "label": lambda here, text: here.manager.plan(Request(profile="profile.fake", labels={"a": text})),
    "actor": lambda here, text: here.manager.plan(Request(profile="profile.fake"), actor=text),
    "key": lambda here, text: here.manager.plan(Request(profile="profile.fake"), idempotency_key=text),
    "id": lambda here, text: here.manager.get(text),
    "state": lambda here, text: here.manager.list(states=[text]),
    "extension": lambda here, text: here.manager.manifest(text),
    "duration": lambda _here, text: parse_duration(text),
    "pair": lambda _here, text: parse_pairs([text], what="input"),
}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    found = installed(tmp_path)
    yield found
    for record in found.manager.list():
        found.manager.destroy(record.id)


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_takes_it_or_refuses_it_with_a_hint(here: Installation, tmp_path: Path, field: str) -> None:
    marker = tmp_path / "executed"
    for text in hostile(COUNT, marker):
        try:
            FIELDS[field](here, text)
        except SandboxerError as error:
            assert error.code in ("invalid", "not_found", "conflict"), f"{field} {text!r}: {error.code}"
            assert error.hint
    assert not marker.exists()


def run(here: Installation, sandbox_id: str, request: Exec, stdin: bytes = b"") -> tuple[int, bytes]:
    """Run a command inside; its exit code and stdout."""
    out = bytearray()
    streams = Streams(stdin=io.BytesIO(stdin), stdout=out.extend, stderr=lambda _chunk: None)
    return here.manager.exec(sandbox_id, request, streams), bytes(out)


@pytest.mark.parametrize("profile", ["profile.fake", "profile.native"])
def test_arguments_environment_and_directories_arrive_byte_for_byte(
    here: Installation, tmp_path: Path, profile: str
) -> None:
    marker = tmp_path / "executed"
    record = create(here, profile=profile)
    words = [text for text in hostile(COUNT, marker) if "\x00" not in text]
    for start in range(0, len(words), 100):
        batch = words[start : start + 100]
        code, out = run(here, record.id, Exec(argv=("printf", "%s\\0", *batch)))
        assert code == 0
        assert out == b"".join(word.encode() + b"\0" for word in batch)
        values = {f"V{n}": word for n, word in enumerate(batch)}
        _, out = run(here, record.id, Exec(argv=("env", "-0"), env=values))
        told = dict(item.split(b"=", 1) for item in out.split(b"\0") if b"=" in item)
        assert {name: told.get(name.encode()) for name in values} == {k: v.encode() for k, v in values.items()}
    assert not marker.exists()


@pytest.mark.parametrize("profile", ["profile.fake", "profile.native"])
def test_hostile_programs_directories_and_paths_do_no_harm(here: Installation, tmp_path: Path, profile: str) -> None:
    marker = tmp_path / "executed"
    record = create(here, profile=profile)
    for text in hostile(len(SEEDS), marker):
        for request in (Exec(argv=(text,)), Exec(argv=("true",), cwd=text), Exec(argv=("true",), service=text)):
            try:
                run(here, record.id, request)
            except SandboxerError as error:
                assert error.hint, f"{request}: {error.message}"
    assert not marker.exists()
    assert run(here, record.id, Exec(argv=("true",)))[0] == 0


def test_a_field_that_reached_a_shell_would_be_seen(here: Installation, tmp_path: Path) -> None:
    """The corpus catches a planted fault: the same strings given to a shell leave the marker."""
    marker = tmp_path / "executed"
    record = create(here)
    for text in hostile(20, marker):
        run(here, record.id, Exec(argv=("sh", "-c", f"true {text}")))
    assert marker.exists()
