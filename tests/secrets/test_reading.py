"""From references to values: the environment, files and commands; and a type that does not print."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import stat
import sys
import time
from pathlib import Path

import msgspec
import pytest

from sandboxer.errors import BackendError, Invalid, NotConfigured, SandboxerError, Timeout
from sandboxer.models import OpenBaoSettings, SecretRef
from sandboxer.secrets import Secret, present, resolve
from sandboxer.timing import Deadline

VALUE = "canary-5d1f0c9b7e"
PATH = os.environ["PATH"]


def read(ref: str, *, required: bool = True, seconds: float = 20, **environment: str) -> str | None:
    """The value behind a reference."""
    found = resolve(
        "KEY",
        SecretRef(ref=ref, required=required),
        {"PATH": PATH, **environment},
        openbao=OpenBaoSettings(),
        deadline=Deadline(seconds),
    )
    return None if found is None else found.reveal()


def refused(ref: str, *, seconds: float = 20, **environment: str) -> SandboxerError:
    """The error of reading it, which says which secret, and what to do."""
    with pytest.raises(SandboxerError) as caught:
        read(ref, required=True, seconds=seconds, **environment)
    error = caught.value
    assert "KEY" in error.message
    assert error.hint != type(error).default_hint
    assert VALUE not in f"{error} {error!r} {error.document()}"
    return error


def script(tmp_path: Path, text: str) -> str:
    """A program of its own."""
    file = tmp_path / "program"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


def test_the_three_local_kinds_give_the_value_without_the_last_line_break(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(VALUE + "\n")
    for ref in ("env:TOKEN", f"file:{file}", "file:~/key", f"cmd:cat {file}"):
        assert read(ref, TOKEN=VALUE, HOME=str(tmp_path)) == VALUE


def test_line_breaks_inside_a_value_stay(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("-----BEGIN\r\nabc\n-----END\n")
    assert read(f"file:{tmp_path}/key") == "-----BEGIN\r\nabc\n-----END"


def test_what_is_missing_is_named_with_what_to_do(tmp_path: Path) -> None:
    assert "NOPE" in refused("env:NOPE").hint
    assert "NOPE" in refused("env:NOPE", NOPE="").hint
    assert str(tmp_path / "nope") in refused(f"file:{tmp_path}/nope").hint
    assert "no-such-program" in refused("cmd:no-such-program x").hint
    for ref in ("env:NOPE", f"file:{tmp_path}/nope", "cmd:no-such-program"):
        assert isinstance(refused(ref), NotConfigured)
        assert read(ref, required=False) is None


def test_a_file_that_cannot_be_it_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    (tmp_path / "binary").write_bytes(VALUE.encode() + b"\xff")
    began = time.monotonic()
    for name in ("pipe", "empty", "large", "."):
        assert isinstance(refused(f"file:{tmp_path}/{name}"), NotConfigured)
    assert isinstance(refused(f"file:{tmp_path}/binary"), BackendError)
    assert time.monotonic() - began < 30


def test_a_command_gets_its_words_and_no_shell(tmp_path: Path) -> None:
    """Promise 24."""
    program = script(tmp_path, 'printf "%s|" "$@"')
    assert read(f"cmd:{program} '$HOME' \"a  b\" ';' '*'") == "$HOME|a  b|;|*|"


def test_a_command_finds_the_environment_that_we_were_given(tmp_path: Path) -> None:
    assert read(f"cmd:{script(tmp_path, 'echo $WARDEN_TOKEN')}", WARDEN_TOKEN=VALUE) == VALUE


def test_what_a_failing_command_says_is_not_passed_on(tmp_path: Path) -> None:
    """Promise 28."""
    for text in (f"echo {VALUE} >&2; exit 3", f"echo {VALUE}; exit 3", f"echo {VALUE}; kill -9 $$"):
        error = refused(f"cmd:{script(tmp_path, text)}")
        assert isinstance(error, BackendError)
        assert error.fault == "backend"
    assert isinstance(refused(f"cmd:{script(tmp_path, 'exit 0')}"), NotConfigured)
    assert isinstance(refused(f"cmd:{tmp_path}"), NotConfigured)


def test_a_command_that_says_too_much_or_never_ends_is_ended(tmp_path: Path) -> None:
    """Promise 22."""
    assert isinstance(refused("cmd:cat /dev/zero"), BackendError)
    began = time.monotonic()
    pid = tmp_path / "pid"
    error = refused(f"cmd:{script(tmp_path, f'echo $$ > {pid}; sleep 1000 & wait')}", seconds=1)
    assert isinstance(error, Timeout)
    assert (error.outcome, error.outcome_stated) == ("failed", True)
    assert time.monotonic() - began < 30
    assert not Path("/proc", pid.read_text().strip()).exists()


def test_a_command_has_no_terminal_to_ask_on(tmp_path: Path) -> None:
    program = script(tmp_path, f"{sys.executable} -c 'import sys; print(repr(sys.stdin.read()))'")
    assert read(f"cmd:{program}") == "''"


def test_a_wrong_reference_is_invalid() -> None:
    assert isinstance(refused(VALUE), Invalid)


def test_what_is_certainly_missing_can_be_told_without_asking_anybody(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(VALUE)
    for ref in ("env:TOKEN", f"file:{tmp_path}/key", "openbao:secret/x#y", "cmd:no-such-program"):
        assert present(SecretRef(ref=ref), {"TOKEN": VALUE}) is None
    gone = present(SecretRef(ref="env:NOPE"), {})
    assert gone is not None
    assert "NOPE" in gone.message
    assert gone.hint == "set the environment variable NOPE"
    assert "nope" in str(present(SecretRef(ref=f"file:{tmp_path}/nope"), {}))
    assert present(SecretRef(ref="env:NOPE", required=False), {}) is None


def test_a_secret_does_not_print_and_cannot_be_copied_or_encoded(caplog: pytest.LogCaptureFixture) -> None:
    """Promise 28."""
    secret = Secret(VALUE)
    shown = [f"{secret} {secret!r} {secret:>40} {[secret]} {(secret,)} {secret!s:.3}", "%s %r" % (secret, secret)]  # noqa: UP031
    logging.getLogger("x").warning("%s %r", secret, {"a": secret})
    assert VALUE not in "".join(shown) + caplog.text
    assert not hasattr(secret, "__dict__")
    for encode in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps, msgspec.json.encode, msgspec.to_builtins):
        with pytest.raises(TypeError) as caught:
            encode(secret)
        assert VALUE not in str(caught.value)
    assert VALUE not in json.dumps([secret], default=str)
    assert secret.reveal() == VALUE


def test_errors_are_made_without_the_values_of_living_secrets() -> None:
    """Promise 28: whoever wrote the words, and however they quote the value."""
    tail = "7c1e55d0a9b3"
    odd = f"pass word/é\"%'+{tail}"
    secret = Secret(odd)
    quoted = [odd, json.dumps(odd), repr(odd), "pass%20word%2F%C3%A9%22%25%27%2B" + tail, odd[:20]]
    for text in quoted:
        error = BackendError(f"it said {text}", hint=f"say {text}", details={text: [text, {"a": text, "n": 1}]})
        said = f"{error} {error!r} {error.args} {error.document()}"
        assert "pass" not in said
        assert tail not in said
        assert error.details is not None
        assert "n" in str(error.details)
    del secret
    assert odd in BackendError(odd).message  # it was the secret that was watched, not the text


def test_lines_of_a_secret_are_masked_too() -> None:
    """Promise 28: an error quotes one line of what it was given."""
    key = Secret("-----BEGIN KEY-----\nc2VjcmV0IG1hdGVyaWFs/+\n-----END KEY-----")
    assert "c2Vjcm" not in BackendError("bad base64: c2VjcmV0IG1hdGVyaWFs").message
    assert key.reveal()


def test_the_file_of_a_secret_is_only_read(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(VALUE)
    file.chmod(0o400)
    assert read(f"file:{file}") == VALUE
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
