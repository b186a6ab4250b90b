"""Commands whose bytes are not text, as a protocol of text carries them."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from sandboxer.errors import Invalid
from sandboxer.extensions.provider import command_bytes

SHOW = ["sh", "-c", 'printf "%s|" "$@" "$A" "$B"', "sh"]
EVERY_BYTE = os.fsdecode(bytes(range(1, 256)))
TORTURE = [EVERY_BYTE, "\udcff", "%s\\n%d\\101", 'it\'s "$HOME" `id` $(id)', "two\nlines\n", "", "-n", "é\udce9", "\\"]
SHELLS = [shell for shell in ("sh", "bash", "dash", "busybox") if shutil.which(shell)]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_bytes_arrive_whatever_they_are(shell: str) -> None:
    env = {"A": EVERY_BYTE, "B": "plain"}
    sent, left = command_bytes.carried([*SHOW, *TORTURE], env)
    assert command_bytes.is_text([*sent, *left.values()])
    program = ["busybox", "sh"] if shell == "busybox" else [shell]
    ran = subprocess.run([*program, *sent[1:]], env={**os.environ, **left}, capture_output=True, check=True)
    assert ran.stdout == b"".join(os.fsencode(word) + b"|" for word in [*TORTURE, EVERY_BYTE, "plain"])


def test_text_is_sent_as_it_is() -> None:
    sent, left = command_bytes.carried([*SHOW, "ä", "日本", "\x01"], {"A": "ö"})
    assert (sent, left) == ([*SHOW, "ä", "日本", "\x01"], {"A": "ö"})


@pytest.mark.parametrize("word", ["\ud800", "a\udfff", "nul\0"])
def test_what_stands_for_no_byte_is_refused(word: str) -> None:
    for argv, env, cwd in (([word], {}, None), (["x"], {"A": word}, None), (["x"], {}, word)):
        with pytest.raises(Invalid) as caught:
            command_bytes.check(argv, env=env, cwd=cwd)
        assert caught.value.hint


@pytest.mark.parametrize("name", ["", "a b", "A=B", "1A", "A\udcff", "A\0"])
def test_what_is_no_name_of_a_variable_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        command_bytes.check(["true"], env={name: "x"}, cwd=None)
