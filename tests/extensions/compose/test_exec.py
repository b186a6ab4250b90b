"""Commands, files and logs of a container: what is decided without one."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.errors import Conflict, Invalid
from sandboxer.extensions.compose_ssh.archives import first_member, prefixed, renamed
from sandboxer.extensions.compose_ssh.argv import split_environment
from sandboxer.extensions.compose_ssh.exec import ExecOutput
from sandboxer.extensions.compose_ssh.logs import LinePrefixer
from sandboxer.hosts.base import Streams

DOCKER = b"OCI runtime exec failed: exec failed: unable to start container process: %s: unknown\r\n"
PODMAN = b"Error: runc: exec failed: unable to start container process: %s\n"
NOT_FOUND = b'exec: "nope": executable file not found in $PATH'
NOT_ALLOWED = b'exec: "/etc": permission denied'
NO_FOLDER = b'chdir to cwd ("/nodir") set in config.json failed: no such file or directory'


def answered(code: int, *, out: bytes = b"", err: bytes = b"", step: int = 7) -> tuple[int, bytes, bytes]:
    got_out, got_err = bytearray(), bytearray()
    answer = ExecOutput(Streams(stdout=got_out.extend, stderr=got_err.extend))
    for start in range(0, len(out), step):
        answer.streams.stdout(out[start : start + step])
    for start in range(0, len(err), step):
        answer.streams.stderr(err[start : start + step])
    return answer.finish(code), bytes(got_out), bytes(got_err)


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [(126, NOT_FOUND, 127), (127, NOT_FOUND, 127), (126, NOT_ALLOWED, 126), (127, NO_FOLDER, 126)],
)
def test_the_engines_own_failures_become_126_and_127(code: int, reason: bytes, expected: int) -> None:
    # docker says it on stdout: it belongs to stderr
    assert answered(code, out=DOCKER % reason) == (expected, b"", DOCKER % reason)
    assert answered(code, err=PODMAN % reason) == (expected, b"", PODMAN % reason)


@pytest.mark.parametrize("code", [0, 1, 3, 125, 126, 127, 255])
@pytest.mark.parametrize("out", [b"", b"O", b"OCI runtime", DOCKER[:26] + b"not really", b"plain" * 2000])
def test_what_a_command_says_and_its_code_are_its_own(code: int, out: bytes) -> None:
    got = answered(code, out=out, err=b"sh: nope: not found\n")
    if code in (126, 127) and out.startswith(DOCKER[:25]):
        return  # nobody can tell this from the engine's own
    assert got == (code, out, b"sh: nope: not found\n")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (1, b"Error response from daemon: Container abc is not running\n"),
        (255, b"Error: can only create exec sessions on running containers: container state improper\n"),
        (125, b'Error: no container with name or ID "abc" found: no such container\n'),
    ],
)
def test_a_container_that_ended_meanwhile_is_a_conflict(code: int, said: bytes) -> None:
    with pytest.raises(Conflict):
        answered(code, err=said)


def test_values_take_the_file_and_longer_ones_the_name() -> None:
    passed = split_environment({"PATH": "/x", "A": "a b", "PEM": "a\nb", "CR": "a\r", "BIG": "x" * 70_000})
    assert passed.lines == ("PATH=/x", "A=a b")
    assert sorted(passed.by_name) == ["BIG", "CR", "PEM"]


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "LD_PRELOAD",
        "DOCKER_HOST",
        "GODEBUG",
        "CONTAINERS_CONF",
        "https_proxy",
        "SANDBOXER_ENV_0",
        "IFS",
        "sbx_s",
    ],
)
def test_a_long_value_under_a_name_that_the_client_reads_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        split_environment({name: "a\nb"})


@pytest.mark.parametrize("env", [{"a b": "x"}, {"": "x"}, {"A=B": "x"}, {"A\n": "x"}, {"A": "\0"}])
def test_what_is_no_variable_is_invalid(env: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        split_environment(env)


def tar(*members: tuple[str, bytes | str | None]) -> io.BytesIO:
    """An archive: bytes are a file, text a symbolic link, None a directory."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.uid = 1234
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
                continue
            member.type = tarfile.DIRTYPE if content is None else tarfile.SYMTYPE
            member.linkname = content or ""
            archive.addfile(member)
    packed.seek(0)
    return packed


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [member.name for member in archive]


def test_an_archive_is_moved_below_a_prefix_and_belongs_to_root() -> None:
    source = tar((".", None), ("./a", b"1"), ("b", None), ("b/link", "../../anywhere"))
    with prefixed(source, "new/dir") as moved, tarfile.open(fileobj=moved) as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == ["new/dir", "new/dir/a", "new/dir/b", "new/dir/b/link"]
    assert {member.uid for member in members} == {0}


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x"])
def test_an_archive_that_leads_out_is_refused(name: str) -> None:
    with pytest.raises(Invalid), prefixed(tar((name, b"")), "x"):
        pass


def test_devices_and_nonsense_are_refused() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        device = tarfile.TarInfo("null")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    packed.seek(0)
    for source in (packed, io.BytesIO(b"x" * 2000)):
        with pytest.raises(Invalid), prefixed(source, ""):
            pass


@pytest.mark.parametrize(
    ("members", "asked", "expected"),
    [
        ([("d/", None), ("d/f", b"1")], "d", ["d", "d/f"]),
        ([("target", None), ("target/f", b"1")], "link", ["link", "link/f"]),
        ([("f", b"x" * 100_000)], "f", ["f"]),
        ([("bin", None), ("bin/sh", b"1")], "", ["root", "root/bin", "root/bin/sh"]),
        ([("/", None), ("/bin", None)], "", ["root", "root/bin"]),
    ],
)
@pytest.mark.parametrize("step", [100, 512, 1 << 20])
def test_what_comes_out_has_the_asked_name_on_top(
    members: list[tuple[str, bytes | None]], asked: str, expected: list[str], step: int
) -> None:
    data, got = tar(*members).getvalue(), bytearray()
    with renamed(asked, got.extend) as feed:
        for start in range(0, len(data), step):
            feed(data[start : start + step])
    assert [name.rstrip("/") for name in names(bytes(got))] == expected


@given(st.binary(max_size=2000))
def test_no_bytes_make_a_first_entry_crash(data: bytes) -> None:
    first_member(data)


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_every_line_of_a_log_is_marked_and_none_is_lost(chunks: list[bytes]) -> None:
    got = bytearray()
    lines = LinePrefixer(b"web | ", got.extend)
    for chunk in chunks:
        lines.write(chunk)
    lines.finish()
    whole = b"".join(chunks)
    expected = whole.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert bytes(got) == b"".join(b"web | " + line + b"\n" for line in expected)
