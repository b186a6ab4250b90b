"""No document of a stranger takes more than its size is worth: JSON from anywhere, YAML, chunks and streams."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxer import document_bounds
from sandboxer.config.yaml_document import parse
from sandboxer.document_bounds import Bounds, LimitExceeded, check_json, check_yaml, decode
from sandboxer.errors import BackendError, Invalid, SandboxerError
from sandboxer.extensions.compose_ssh import engine, errors, inventory
from sandboxer.extensions.compose_ssh.loader.limits import LoadUsage
from sandboxer.extensions.compose_ssh.loader.parse import parse as parse_compose
from sandboxer.extensions.daytona import exec as daytona_exec
from sandboxer.extensions.daytona.client import said_absent
from sandboxer.extensions.daytona.logs import split_streams
from sandboxer.extensions.directories.sandbox import marker
from sandboxer.extensions.e2b import connect, create
from sandboxer.extensions.e2b import errors as e2b_errors
from sandboxer.hosts.base import Result
from sandboxer.http import Response
from sandboxer.models import Profile
from sandboxer.names import MARKER_FILE
from sandboxer.selfcheck.remote_probe import read_answer
from tests.api.serving import Served, serving
from tests.installations import installed

MIB = 1 << 20


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(installed(tmp_path_factory.mktemp("shared"))) as server:
        yield server


DEEP = b"[" * 900 + b"]" * 900
NESTED = b'{"a":' * 900 + b"1" + b"}" * 900
HOSTILE = {
    "lists in lists": DEEP,
    "mappings in mappings": NESTED,
    "brackets without end": b"[" * 100_000,
    "many small lists": b"[" + b"[]," * (2 * MIB) + b"0]",
    "a number of many digits": b'{"a": ' + b"1" * 100_000 + b"}",
    "a number beyond numbers": b'{"a": 1e999}',
    "half a character": b'{"a": "\\ud800"}',
    "not a number": b'{"a": NaN}',
    "no UTF-8": b'{"a": "\xff"}',
    "nothing": b"",
    "quotes": b'"' * MIB,
}


def answer(body: bytes, *, status: int = 200) -> Response:
    """What a provider says."""
    return Response(name="Thing", asked="GET /x", status=status, headers={}, body=body)


def connect_frame(body: bytes, *, flags: int = 0) -> bytes:
    """A message of envd."""
    return bytes([flags]) + len(body).to_bytes(4, "big") + body


READERS: dict[str, Callable[[bytes], object]] = {
    "an answer of any API": lambda data: answer(data).json(),
    "Daytona's 404": lambda data: said_absent(answer(data, status=404)),
    "Daytona's log": lambda data: split_streams(answer(data)),
    "E2B's refusal": lambda data: e2b_errors.error_body(answer(data, status=400)),
    "E2B's metadata": lambda data: create.parse_use_label({"sandboxer-use": data.decode("utf-8", "replace")}),
    "E2B's stream": lambda data: list(connect.events([connect_frame(data)])),
    "E2B's stream, at its end": lambda data: list(connect.events([connect_frame(data, flags=connect.END)])),
    "a marker of compose": lambda data: inventory.read_marker(data, "/x"),
    "a handle of compose": lambda data: inventory.parse_present("handle " + data.decode("utf-8", "replace")),
    "what containers are": lambda data: engine.parse_containers("1.5\n" + data.decode("utf-8", "replace")),
    "the self-check": lambda data: read_answer(data, nonce="n"),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_json_is_refused_or_passed_over(reader: Callable[[bytes], object], data: bytes) -> None:
    """Never a RecursionError, a ValueError or the like, which would be told as a bug of ours."""
    try:
        found = reader(data)
    except SandboxerError as error:
        assert isinstance(error, BackendError)
        return
    assert depth(found) < 70


def depth(value: Any) -> int:
    """How deep a value goes; far too deep ones are not followed to their end."""
    levels = 0
    level = [value]
    while level and levels < 100:
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
        ]
        levels += 1
    return levels


def inside(value: Any) -> list[Any]:
    """What a list or mapping holds."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_marker_in_a_directory_counts_as_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / MARKER_FILE).write_bytes(data)
    assert depth(marker(tmp_path)) < 70


def test_a_marker_that_is_no_mapping_or_has_no_end_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / MARKER_FILE).write_bytes(b"[1]")
    assert marker(tmp_path) == {}
    with (tmp_path / MARKER_FILE).open("wb") as file:
        file.truncate(1 << 40)
    assert marker(tmp_path) == {}


@pytest.mark.parametrize("levels", [70, 300, 900])
@pytest.mark.parametrize("path", ["/v1/sandboxes", "/v1/route/explain", "/v1/expire"])
def test_a_deep_body_is_the_callers_mistake(shared: Served, path: str, levels: int) -> None:
    body = b'{"profile": "profile.fake", "inputs": {"greeting": ' + b"[" * levels + b"]" * levels + b"}}"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    told = shared.send(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body, timeout=60)
    assert told.status == 422, told
    assert "nested deeper than 64" in json.loads(told.body)["message"]


def test_what_is_large_and_honest_is_read() -> None:
    one = {"id": "x" * 20, "labels": {"a": "[,{" * 20}, "state": "running", "parts": [1, 2.5, None, True]}
    data = msgspec.json.encode([one] * 20_000)
    assert len(data) > 3_000_000
    assert decode(data) == [one] * 20_000


value = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=20,
)


@given(value)
def test_any_json_is_measured_as_it_is(found: Any) -> None:
    """The measure of the text is that of the values: at the bound it passes, beyond it is refused."""
    data = json.dumps(found, ensure_ascii=False).encode()
    check_json(data, Bounds(size=len(data), depth=64))
    assert decode(data) == found
    brackets = nesting(data)
    check_json(data, Bounds(size=len(data), depth=brackets))
    if brackets:
        with pytest.raises(LimitExceeded, match="deeper"):
            check_json(data, Bounds(size=len(data), depth=brackets - 1))


def nesting(data: bytes) -> int:
    """How deep the brackets of a JSON text go: counted one by one."""
    most = now = 0
    inside = escaped = False
    for char in data.decode():
        if inside:
            inside, escaped = escaped or char != '"', char == "\\" and not escaped
        elif char == '"':
            inside = True
        elif char in "[{":
            now += 1
            most = max(most, now)
        elif char in "]}":
            now -= 1
    return most


def laughs(n: int) -> bytes:
    """A list of nine of the list before."""
    return b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9))


def merges(n: int) -> bytes:
    """A mapping with nine of the mapping before."""
    return b"a%d: &a%d {%s}\n" % (n, n, b", ".join(b"k%d: *a%d" % (k, n - 1) for k in range(9)))


YAML = {
    "aliases of one long text": b"a: &a " + b"x" * 200_000 + b"\nb: [" + b"*a, " * 3_000 + b"]\n",
    "a billion laughs": b"a0: &a0 [x]\n" + b"".join(map(laughs, range(1, 30))),
    "merges of merges": b"a0: &a0 {x: 1}\n" + b"".join(map(merges, range(1, 30))),
    "30,000 brackets": b"[" * 30_000,
    "brackets and braces": b"[{a: " * 10_000,
    "dashes": b"- " * 100_000,
    "question marks": b"? " * 100_000,
    "deep by blanks": b"".join(b" " * n + b"a:\n" for n in range(900)),
    "a list in itself": b"id: &a [*a]\n",
    "a mapping in itself": b"&a {id: *a}\n",
    "a key in itself": b"? &a [*a]\n: 1\n",
    "a number by sixties": b"id: " + b"1:" * 400_000 + b"1\n",
    "a number by sixties, said so": b"id: !!int '" + b"1:" * 400_000 + b"1'\n",
    "a fraction by sixties": b"id: " + b"1:" * 400_000 + b"1.5\n",
    "a fraction that is too large": b"id: " + b"59:" * 180 + b"1.5\n",
    "a number of many digits": b"id: " + b"1" * 100_000 + b"\n",
    "a hexadecimal number": b"id: 0x" + b"f" * 900_000 + b"\n",
    "no number": b'id: !!int ""\n',
    "no truth": b"id: !!bool x\n",
    "no fraction": b'id: !!float ""\n',
    "no time": b"id: !!timestamp x\n",
    "a month of thirteen": b"id: !!timestamp 2020-13-01\n",
    "no bytes": b"id: !!binary \xc3\xa9\n",
    "a class": b"id: !!python/object/apply:os.system [id]\n",
    "a set": b"id: !!set {a, b}\n",
    "an alias of nothing": b"id: *a\n",
    "two documents": b"id: a\n---\nid: b\n",
    "no UTF-8": b"id: \xff\xfe\n",
    "UTF-16": "id: a\n".encode("utf-16"),
    "a NUL": b"id: \0\n",
}  # fmt: skip


@pytest.mark.parametrize("text", YAML.values(), ids=YAML.keys())
def test_hostile_yaml_is_a_mistake_in_the_file(text: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        parse(text, Profile, source="profile.yaml")
    assert "profile.yaml" in refused.value.message
    assert len(refused.value.message) < 1000


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from sandboxer.config.yaml_document import parse
from sandboxer.errors import Invalid
from sandboxer.models import Profile
for text in sys.stdin.buffer.read().split(b"\\n%%%\\n"):
    try:
        parse(text, Profile, source="x")
    except Invalid:
        continue
    raise SystemExit("it was taken")
"""


def test_hostile_yaml_takes_neither_memory_nor_time_nor_the_process() -> None:
    """In a process that has 400 MB and a minute of a processor for all of them."""
    words = [sys.executable, "-c", LIMITED, str(400 * MIB)]
    done = subprocess.run(words, input=b"\n%%%\n".join(YAML.values()), capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def test_a_file_without_end_is_read_to_the_limit_only() -> None:
    from sandboxer.config.yaml_document import load

    with pytest.raises(Invalid, match="larger than 1 MiB"):
        load(Path("/dev/zero"), Profile)


def test_yaml_is_measured_with_its_aliases() -> None:
    text = b"a: &a [1, 2, 3]\nb: [*a, *a]\n"  # a mapping, two keys, a list of 3, a list of two lists of 3
    check_yaml(text, Bounds(size=100, values=17))
    with pytest.raises(LimitExceeded, match="more than 12 values"):
        check_yaml(text, Bounds(size=100, values=12))
    long = b"a: &a " + b"x" * 50 + b"\nb: [*a, *a]\n"
    check_yaml(long, Bounds(size=100, text=152))
    with pytest.raises(LimitExceeded, match="more than 151 characters"):
        check_yaml(long, Bounds(size=100, text=151))
    with pytest.raises(LimitExceeded, match="deeper than 2") as refused:
        check_yaml(b"a:\n - - b\n", Bounds(size=100, depth=2))
    assert refused.value.line == 2


def test_yaml_that_is_deep_by_its_aliases_is_too_deep() -> None:
    tower = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{x: *a{n - 1}}}\n" for n in range(1, 70))
    with pytest.raises(LimitExceeded, match="deeper than 64 levels, by an alias") as refused:
        check_yaml(tower)
    assert refused.value.line == 64


def test_an_alias_of_what_it_is_in_is_refused_where_its_name_was_used_before() -> None:
    text = "x-a: &a 1\nx-b: &a [*a]\nservices: {w: {image: a}}\n"
    with pytest.raises(LimitExceeded, match="stands for what it is in"):
        check_yaml(text)
    with pytest.raises(Invalid, match=r"compose.yaml, line 2: the alias \*a stands for what it is in"):
        parse_compose(text.encode(), name="compose.yaml", account=LoadUsage())


@given(st.binary(max_size=200) | st.text(alphabet="a0:-?[]{}&*!|>'\"#,% \n\t.<~", max_size=60).map(str.encode))
def test_no_bytes_break_the_reading_of_yaml(data: bytes) -> None:
    try:
        parse(data, Profile, source="x")
    except Invalid:
        return


def test_marks_in_a_log_by_the_million_are_taken_apart_at_once() -> None:
    """What runs inside writes them; each was looked for from the beginning, and the rest copied."""
    body = b"\x01\x01\x01a\x02\x02\x02b" * (MIB // 2)
    program = threading.Thread(target=lambda: found.append(split_streams(answer(body))), daemon=True)
    found: list[tuple[bytes, bytes]] = []
    program.start()
    program.join(60)
    assert found == [(b"a" * (MIB // 2), b"b" * (MIB // 2))]


def test_what_a_build_prints_is_not_searched_for_ever() -> None:
    """A line of sixteen megabytes that begins, again and again, like an error that we know."""
    said = b"Error while fetching server API version " * (16 * MIB // 40)
    result = Result(code=1, stdout=b"", stderr=said + b"\nno space left on device\n")
    found: list[SandboxerError] = []
    search = threading.Thread(
        target=lambda: found.append(errors.translate(result, doing="building", engine="docker")), daemon=True
    )
    search.start()
    search.join(60)
    assert "disk is full" in found[0].message


@pytest.mark.parametrize("text", ["\u00b2", "\u0663", "9" * 5000, "", "-1", "+1", " 1", "1_0", "1.5"])
def test_what_is_no_number_is_none(text: str) -> None:
    assert document_bounds.number(text) is None
    assert daytona_exec.read(f"tok done {text.strip('1 ') or '-'}\n=\n=\n", "tok").code == 0


def test_a_number_is_one() -> None:
    assert [document_bounds.number(text) for text in ("0", "007", "9" * 18)] == [0, 7, 10**18 - 1]


def test_the_bounds_are_what_they_say() -> None:
    assert issubclass(LimitExceeded, msgspec.DecodeError)
    assert issubclass(LimitExceeded, ValueError)
    assert document_bounds.SMALL.size == MIB
    assert document_bounds.ANSWER.depth == document_bounds.SMALL.depth == 64
