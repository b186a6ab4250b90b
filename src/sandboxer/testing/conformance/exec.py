"""What reaches the inside, and what comes out of it: commands, files, logs."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sandboxer.errors import Invalid, SandboxerError, Timeout
from sandboxer.extensions.base import CanCopy, CanExec, CanLogs, Exec
from sandboxer.hosts.base import Streams
from sandboxer.hosts.trees.tar_writer import write_tar
from sandboxer.names import new_id
from sandboxer.testing.conformance.bench import Conformance, Made

TORTURE = (
    "", " ", "a b", "'", '"', "\\", "$HOME", "`id`", "$(id)", "a\nb", "\n", "*", "~", "-n", "--", ";", "&&", "|", ">x",
    "#", "!", "%s", "é", "日本", "\t", "{a,b}", "a=b", "\\n", "'\"'", "$'x'", "\x7f", "x" * 5000,
)  # fmt: skip
"""Arguments that a careless launch would change."""


class ExecConformance(Conformance):
    """How commands run and files travel."""

    def test_arguments_arrive_byte_for_byte(self, made: Made) -> None:
        script = 'for a; do printf "%s\\0" "$a"; done'
        code, out, err = made.run("sh", "-c", script, "sh", *TORTURE)
        assert (code, err) == (0, b"")
        assert out == b"".join(word.encode() + b"\0" for word in TORTURE)

    def test_words_that_are_not_text_arrive_byte_for_byte_or_are_refused(self, made: Made) -> None:
        """Words of a command line hold bytes that are not UTF-8 as lone surrogates."""
        word = os.fsdecode(b"/tmp/d\xff\xfe\x80 %s\\n'")
        tries: list[tuple[tuple[str, ...], dict[str, Any], bytes]] = [
            (("printf", "%s", word), {}, os.fsencode(word)),
            (("sh", "-c", 'printf %s "$A$B"'), {"env": {"A": word, "B": "é"}}, os.fsencode(word) + "é".encode()),
            (("sh", "-c", 'mkdir -p "$1" && echo here >"$1/x\377"', "sh", word), {}, b""),
            (("sh", "-c", "cat x*"), {"cwd": word}, b"here\n"),
        ]
        for argv, more, expected in tries:
            with suppress(Invalid):
                assert made.run(*argv, **more) == (0, expected, b"")
        extension = made.bench.extension()
        if isinstance(extension, CanCopy):
            with suppress(Invalid):
                assert extension.path_kind(made.handle, word, made.bench.context(made.host)) == "directory"

    def test_environment_values_arrive_and_ours_stay_out(self, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SANDBOXER_CONFORMANCE_CANARY", "leaked")
        values = {f"V{n}": word for n, word in enumerate(TORTURE)}
        names = " ".join(f'"$V{n}"' for n in range(len(TORTURE)))
        code, out, _ = made.run("sh", "-c", f'for a in {names}; do printf "%s\\0" "$a"; done', env=values)
        assert code == 0
        assert out == b"".join(word.encode() + b"\0" for word in TORTURE)
        code, out, _ = made.run("sh", "-c", "set; env 2>/dev/null || true")
        assert b"leaked" not in out

    def test_stdin_is_binary_and_ends(self, made: Made) -> None:
        data = bytes(range(256)) * 400
        code, out, _ = made.run("cat", stdin=data)
        assert (code, out == data) == (0, True)

    def test_stdout_and_stderr_stay_apart(self, made: Made) -> None:
        assert made.run("sh", "-c", "echo out; echo err >&2; exit 3") == (3, b"out\n", b"err\n")

    def test_a_commands_streams_can_be_opened_by_their_names(self, made: Made) -> None:
        """As entry points of many images do, with an ordinary user."""
        assert made.run("cat", "/dev/stdin", stdin=b"in\n") == (0, b"in\n", b"")
        assert made.run("sh", "-c", "echo out >/dev/stdout") == (0, b"out\n", b"")
        assert made.run("sh", "-c", "echo err | tee /dev/stderr") == (0, b"err\n", b"err\n")

    def test_opening_an_output_by_its_name_loses_nothing_of_it(self, made: Made) -> None:
        script = "echo first; echo second >/dev/stdout; echo third"
        assert made.run("sh", "-c", script) == (0, b"first\nsecond\nthird\n", b"")

    @pytest.mark.parametrize("code", [0, 1, 2, 7, 42, 124, 125, 126, 127, 255])
    def test_exit_codes_are_the_commands_own(self, made: Made, code: int) -> None:
        assert made.run("sh", "-c", f"exit {code}")[0] == code

    def test_a_command_that_is_not_there_is_127_and_one_that_cannot_run_126(self, made: Made) -> None:
        assert made.run("no-such-command-here")[0] == 127
        made.run("sh", "-c", "echo text > /tmp/plain; chmod 644 /tmp/plain")
        assert made.run("/tmp/plain")[0] == 126

    def test_a_command_killed_by_a_signal_is_128_plus_its_number(self, made: Made) -> None:
        assert made.run("sh", "-c", "kill -9 $$")[0] == 137

    def test_a_working_directory_is_kept(self, made: Made) -> None:
        assert made.run("pwd", cwd="/tmp")[1] == b"/tmp\n"

    def test_what_one_command_leaves_another_finds(self, made: Made) -> None:
        made.run("sh", "-c", "echo here > /tmp/left")
        assert made.run("cat", "/tmp/left")[1] == b"here\n"

    def test_a_timeout_kills_the_command_and_its_children(self, made: Made) -> None:
        word = f"sleeps{new_id()}"
        # a number of its own: what isolates nothing shows the machine's other processes too
        sleep = f"sleep {1_000_000 + int.from_bytes(os.urandom(4))}"
        script = f": {word}; {sleep} & {sleep} & wait"
        started = time.monotonic()
        with pytest.raises(Timeout):
            made.run("sh", "-c", script, seconds=1.0)
        assert time.monotonic() - started < 10
        out = _check_gone(made, sleep)
        assert word.encode() not in out

    def test_a_command_that_nobody_wants_any_more_is_ended_with_its_children(self, made: Made) -> None:
        """As when the client of the HTTP API hangs up: another thread cancels the deadline."""
        sleep = f"sleep {1_000_000 + int.from_bytes(os.urandom(4))}"
        extension, context = made.bench.extension(), made.bench.context(made.host)
        assert isinstance(extension, CanExec)
        begun = Streams(stdin=None, stdout=lambda _: context.deadline.cancel(), stderr=lambda _: None)
        script = f"{sleep} & echo begun; {sleep} & wait"
        started = time.monotonic()
        with pytest.raises(Timeout):
            extension.exec(made.handle, Exec(argv=("sh", "-c", script)), begun, context)
        assert time.monotonic() - started < 30
        _check_gone(made, sleep)

    def test_a_timeout_kills_children_with_a_session_of_their_own(self, made: Made) -> None:
        sleep = f"sleep {1_000_000 + int.from_bytes(os.urandom(4))}"
        if made.ready.isolation.class_ == "none" or made.run("sh", "-c", "command -v setsid")[0] != 0:
            pytest.skip("has no boundary that ends what is left, or no setsid inside")
        with pytest.raises(Timeout):
            made.run("sh", "-c", f"setsid {sleep} & wait", seconds=2.0)
        _check_gone(made, sleep)

    def test_a_program_that_looks_like_an_option_is_refused_or_not_found(self, made: Made) -> None:
        try:
            code = made.run("-c", "exit 3")[0]
        except Invalid:
            return
        assert code == 127

    def test_a_tree_goes_in_and_comes_out_unchanged(self, made: Made) -> None:
        extension, context = made.bench.extension(), made.bench.context(made.host)
        if not isinstance(extension, CanCopy):
            pytest.skip("has no cp")
        data = bytes(range(256)) * 100
        extension.put_archive(made.handle, "/tmp/a/b", _tar({"tree/x": data, "tree/sub dir/ü": b"u"}), context)
        assert extension.path_kind(made.handle, "/tmp/a/b/tree", context) == "directory"
        assert extension.path_kind(made.handle, "/tmp/a/b/tree/x", context) == "file"
        assert extension.path_kind(made.handle, "/tmp/a/nope", context) == "absent"
        out = io.BytesIO()
        extension.get_archive(made.handle, "/tmp/a/b/tree", lambda chunk: _write(out, chunk), context)
        out.seek(0)
        with tarfile.open(fileobj=out) as tar:
            names = {member.name.rstrip("/"): member for member in tar}
            assert set(names) == {"tree", "tree/x", "tree/sub dir", "tree/sub dir/ü"}
            content = tar.extractfile(names["tree/x"])
            assert content is not None
            assert content.read() == data

    def test_both_names_of_one_file_travel_in_and_out(self, made: Made) -> None:
        extension, context = self._copier(made), made.bench.context(made.host)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name, link in (("one", ""), ("two", "one")):
                member = tarfile.TarInfo(name)
                member.type, member.linkname, member.size = (tarfile.LNKTYPE, link, 0) if link else (b"0", "", 4)
                tar.addfile(member, io.BytesIO(b"same"))
        packed.seek(0)
        extension.put_archive(made.handle, "names/hard", packed, context)
        assert made.run("cat", "names/hard/one", "names/hard/two")[1] == b"samesame"
        assert self._contents(made, "names/hard") == {"hard/one": b"same", "hard/two": b"same"}

    def test_a_file_that_goes_in_replaces_a_link_and_not_what_it_led_to(self, made: Made) -> None:
        extension, context = self._copier(made), made.bench.context(made.host)
        script = "mkdir -p over && echo old >/tmp/led-to && ln -s /tmp/led-to over/x && ln -s /nowhere/at/all over/y"
        assert made.run("sh", "-c", script)[0] == 0
        extension.put_archive(made.handle, "over", _tar({"x": b"new", "y": b"new"}), context)
        assert made.run("sh", "-c", "cat over/x over/y /tmp/led-to; test -L over/x || test -L over/y")[:2] == (
            1,
            b"newnewold\n",
        )

    def test_a_tree_goes_in_as_a_whole_with_a_closed_directory_and_a_file_of_holes(
        self, made: Made, tmp_path: Path
    ) -> None:
        """A directory's header comes before its contents, with a file of its parent between them."""
        extension, context = self._copier(made), made.bench.context(made.host)
        (tmp_path / "tree" / "closed" / "sub").mkdir(parents=True)
        for name in ("beside", "closed/file", "closed/sub/file"):
            (tmp_path / "tree" / name).write_text(name)
        with (tmp_path / "tree" / "holes").open("wb") as file:
            file.truncate(20 << 20)
            file.seek(10 << 20)
            file.write(b"middle")
        holes = extension.knows_holes(made.handle, context)
        packed = io.BytesIO()
        (tmp_path / "tree" / "closed").chmod(0o555)
        try:
            write_tar(tmp_path / "tree", packed.write, holes=holes)
        finally:
            (tmp_path / "tree" / "closed").chmod(0o755)
        packed.seek(0)
        extension.put_archive(made.handle, "whole", packed, context)
        script = (
            "cd whole && cat beside closed/file closed/sub/file && tail -c +10485761 holes | head -c 6 && wc -c <holes"
        )
        code, out, err = made.run("sh", "-c", script)
        made.run("chmod", "755", "whole/closed")
        assert (code, out.split()) == (0, [b"besideclosed/fileclosed/sub/filemiddle20971520"]), err
        if holes:
            assert int(made.run("du", "-k", "whole/holes")[1].split()[0]) < 10 << 10

    def test_what_cannot_be_read_is_left_out_and_counted_and_the_others_come(self, made: Made) -> None:
        extension = self._copier(made)
        script = "mkdir closed && cd closed && for n in a b c; do echo $n >$n; done && chmod 0 b && mkfifo p"
        assert made.run("sh", "-c", script)[0] == 0
        out = io.BytesIO()
        left = extension.get_archive(
            made.handle, "closed", lambda chunk: _write(out, chunk), made.bench.context(made.host)
        )
        out.seek(0)
        with tarfile.open(fileobj=out) as tar:
            names = set(tar.getnames())
        assert {"closed", "closed/a", "closed/c"} <= names
        readable = made.run("cat", "closed/b")[0] == 0  # to root inside, it is
        assert ("closed/b" in names) == readable
        assert (0 if left is None else left.count) == (0 if readable else 1)

    @pytest.mark.parametrize("path", ["dots/tree", "dots/tree/", "dots/tree/.", "dots/tree/sub/..", "dots/link"])
    def test_a_directory_comes_out_whatever_path_leads_to_it(self, made: Made, path: str) -> None:
        self._copier(made)
        script = "mkdir -p dots/tree/sub && cd dots && echo x >tree/file && ln -sfn tree link"
        assert made.run("sh", "-c", script)[0] == 0
        found = self._contents(made, path)
        assert {name.partition("/")[2]: data for name, data in found.items()} == {"file": b"x\n"}

    def test_the_directory_where_commands_start_comes_out(self, made: Made) -> None:
        self._copier(made)
        assert made.run("sh", "-c", "echo here >of-the-start")[0] == 0
        assert self._contents(made, "of-the-start") == {"of-the-start": b"here\n"}
        if made.run("pwd")[1] != b"/\n":
            assert "of-the-start" in {name.partition("/")[2] for name in self._contents(made, ".")}

    def test_a_link_to_nothing_is_there(self, made: Made) -> None:
        extension = self._copier(made)
        assert made.run("ln", "-sfn", "/no/such/place", "dangling")[0] == 0
        assert extension.path_kind(made.handle, "dangling", made.bench.context(made.host)) == "file"

    def _copier(self, made: Made) -> CanCopy:
        extension = made.bench.extension()
        if not isinstance(extension, CanCopy):
            pytest.skip("has no cp")
        return extension

    def _contents(self, made: Made, path: str) -> dict[str, bytes]:
        """The regular files that come out of a path, each under each of its names."""
        out = io.BytesIO()
        context = made.bench.context(made.host)
        self._copier(made).get_archive(made.handle, path, lambda chunk: _write(out, chunk), context)
        out.seek(0)
        with tarfile.open(fileobj=out) as tar:
            opened = {member.name: tar.extractfile(member) for member in tar if member.isreg() or member.islnk()}
            return {name: file.read() for name, file in opened.items() if file is not None}

    def test_what_is_not_there_cannot_be_taken_out(self, made: Made) -> None:
        extension = made.bench.extension()
        if not isinstance(extension, CanCopy):
            pytest.skip("has no cp")
        with pytest.raises(SandboxerError) as caught:
            extension.get_archive(made.handle, "/tmp/nope", lambda _chunk: None, made.bench.context(made.host))
        assert caught.value.code == "not_found"

    def test_logs_can_be_read(self, made: Made) -> None:
        extension = made.bench.extension()
        if not isinstance(extension, CanLogs):
            pytest.skip("has no logs")
        out = bytearray()
        streams = Streams(stdout=out.extend, stderr=out.extend)
        extension.logs(made.handle, streams, made.bench.context(made.host), service=None, follow=False, tail=10)


def _write(file: io.BytesIO, chunk: bytes) -> None:
    file.write(chunk)


def _tar(files: Mapping[str, bytes]) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    packed.seek(0)
    return packed


def _check_gone(made: Made, command: str) -> bytes:
    """Fail unless such a command soon runs no more inside; the command lines of what does."""
    look = 'for d in /proc/[0-9]*; do tr "\\0" " " < $d/cmdline; echo; done 2>/dev/null'
    deadline = time.monotonic() + 5
    while command.encode() in (out := made.run("sh", "-c", look)[1]) and time.monotonic() < deadline:
        continue
    assert command.encode() not in out
    return out
