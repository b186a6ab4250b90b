"""Each request of ours is one that E2B's specification knows."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from sandboxer.extensions.base import Exec
from sandboxer.extensions.e2b import E2BExtension
from sandboxer.hosts.base import Streams
from sandboxer.names import new_id
from tests.extensions.e2b.harness import context, made, spec
from tests.extensions.e2b.specification import violations
from tests.fakes import Fault, RecordedRequest
from tests.fakes.e2b import FakeE2B, rate_limited


@pytest.fixture(params=["0.6.7", "0.3.9"])
def asked(request: pytest.FixtureRequest) -> Iterator[list[RecordedRequest]]:
    """Everything that is asked in a tour of all that the extension can do."""
    with FakeE2B(envd_version=request.param) as fake:
        _tour(fake)
        yield list(fake.requests)


def _tour(fake: FakeE2B) -> None:
    extension = E2BExtension()
    extension.check(context(fake))
    fake.script.add(Fault(match="POST /v2/sandboxes", kind="lost-answer"), rate_limited(seconds=0))
    handle = made(
        fake, extension=extension, options={"env": {"A": "é\n"}, "ports": [80], "user": "user", "template": "large"}
    )
    sink = bytearray()
    streams = Streams(stdin=io.BytesIO(b"in"), stdout=sink.extend, stderr=sink.extend)
    assert extension.exec(handle, Exec(argv=("cat",), env={"B": ""}, cwd="/tmp"), streams, context(fake)) == 0
    terminal = Streams(stdin=io.BytesIO(b"x\n"), stdout=sink.extend, stderr=sink.extend)
    extension.exec(handle, Exec(argv=("head", "-1"), tty=True), terminal, context(fake))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("file"))
    packed.seek(0)
    extension.put_archive(handle, "there", packed, context(fake))
    extension.get_archive(handle, "there", sink.extend, context(fake))
    extension.path_kind(handle, "there", context(fake))
    extension.logs(handle, streams, context(fake), service=None, follow=False, tail=5)
    extension.logs(handle, streams, context(fake), service=None, follow=False, tail=None)
    extension.renew(handle, time.time() + 100, context(fake))
    extension.renew(handle, None, context(fake))
    extension.meter_actual(handle, context(fake))
    with pytest.raises(Exception, match="in time"):
        extension.exec(handle, Exec(argv=("sleep", "50")), streams, context(fake, seconds=0.5))
    kept = extension.snapshot(handle, f"snap-{new_id()}", context(fake))
    other = extension.restore_from_snapshot(spec(), kept, context(fake))
    extension.stop(handle, context(fake))
    extension.start(handle, time.time() + 100, context(fake))
    extension.inventory(context(fake))
    for each in (handle, other):
        extension.status(each, context(fake))
        extension.teardown(each, context(fake))
    extension.delete_snapshot(kept, context(fake))


def test_every_request_fits_the_specification(asked: list[RecordedRequest]) -> None:
    assert violations(asked) == []
    assert len({(request.method, request.path.split("/")[1]) for request in asked}) >= 7, "the tour went somewhere"


def test_a_request_of_the_first_version_fits_too() -> None:
    with FakeE2B(second=False, idempotent=False) as fake:
        handle = made(fake)
        E2BExtension().stop(handle, context(fake))
        E2BExtension().start(handle, None, context(fake))
        assert violations(fake.requests) == []


def request(
    method: str, path: str, body: Any = None, *, query: str = "", kind: str = "application/json"
) -> RecordedRequest:
    raw = b"" if body is None else msgspec.json.encode(body)
    return RecordedRequest(
        method=method, path=path, query_text=query, headers={"content-type": kind}, body=raw, status=200, at=0.0
    )


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        (request("POST", "/v2/sandboxes", {"templateId": "base"}), "templateId"),
        (request("POST", "/v2/sandboxes", {"templateID": "base", "timeout": "60"}), "is not of type 'integer'"),
        (request("POST", "/v2/sandboxes", {"templateID": "base", "metadata": {"a": 1}}), "is not of type 'string'"),
        (request("POST", "/v2/sandboxes"), "missing"),
        (request("POST", "/v3/sandboxes", {}), "no such operation"),
        (request("PATCH", "/sandboxes/i1"), "no such operation"),
        (request("GET", "/v2/sandboxes", query="limit=1000"), "greater than the maximum"),
        (request("GET", "/v2/sandboxes", query="state=stopped"), "not one of"),
        (request("GET", "/v2/sandboxes", query="label=x"), "unknown parameter"),
        (request("POST", "/process.Process/SendInput", {"process": {"pod": 1}}), "pod"),
        (request("POST", "/process.Process/Kill", {}), "no such method"),
        (request("POST", "/files", "x", kind="text/plain"), "content type"),
    ],
)
def test_a_planted_fault_is_seen(planted: RecordedRequest, fault: str) -> None:
    assert fault in " ".join(violations([planted]))
