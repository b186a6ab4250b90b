"""Servers that speak E2B's API and say no more than its specification demands, or do less than E2B itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandboxer.errors import NotConfigured, Timeout, Unsupported
from sandboxer.extensions.e2b import E2BExtension
from sandboxer.extensions.e2b.connect import events, frame
from sandboxer.extensions.e2b.handle import sandbox_data
from sandboxer.hosts.base import Streams
from tests.extensions.calls import archive_of, ran
from tests.extensions.e2b.harness import context, made, spec
from tests.fakes import Fault, Reply, Request
from tests.fakes.e2b import FakeE2B

LIST = "GET /v2/sandboxes"
UNROUTED = b"404 page not found"


class Terse(FakeE2B):
    """Only the answers to `create` and `connect` have the token, as the specification leaves open."""

    def _get(self, request: Request) -> Reply:
        reply = super()._get(request)
        return Reply(json={name: value for name, value in reply.json.items() if name != "envdAccessToken"})


class Unfiltered(FakeE2B):
    """It has no filter by metadata: a list shows all that the account has."""

    def _list(self, request: Request) -> Reply:
        request.query_text = "&".join(part for part in request.query_text.split("&") if "metadata" not in part)
        return super()._list(request)


@pytest.fixture
def terse() -> Iterator[FakeE2B]:
    """A server that tells the token when it makes or connects, and not when it is looked at."""
    with Terse() as cloud:
        yield cloud


@pytest.fixture
def unfiltered() -> Iterator[FakeE2B]:
    """A server whose lists are not filtered."""
    with Unfiltered() as cloud:
        yield cloud


def test_a_token_that_a_look_does_not_tell_is_asked_for(terse: FakeE2B) -> None:
    handle = made(terse)
    ends = terse.estate.sandboxes[sandbox_data(handle).id].end_at
    for stdin in (None, b"in"):
        another_process = E2BExtension()
        code, out, _ = ran(another_process, handle, context(terse), ("sh", "-c", "cat; echo ran"), stdin=stdin)
        assert (code, out) == (0, (stdin or b"") + b"ran\n")
    assert abs(terse.estate.sandboxes[sandbox_data(handle).id].end_at - ends) < 5, "asking for it moves no end"


def test_a_token_that_the_create_told_is_not_asked_for_again(terse: FakeE2B) -> None:
    extension = E2BExtension()
    handle = made(terse, extension=extension)
    assert ran(extension, handle, context(terse), ("true",))[0] == 0
    assert terse.asked("POST .*/connect") == []


def test_sandboxes_of_others_are_never_ours_where_lists_are_not_filtered(unfiltered: FakeE2B) -> None:
    """Promise 8: a filter that a server does not know is none."""
    extension, theirs = E2BExtension(), context(unfiltered, install="someoneelse")
    foreign = {sandbox_data(extension.provision(spec(), context(unfiltered))).id for _ in range(2)}
    assert extension.inventory(theirs) == []
    assert extension.find(spec().sandbox_id, context(unfiltered)) is None
    unfiltered.script.add(Fault(match="POST /v2/sandboxes", kind="lost-answer"))
    handle = extension.provision(spec(), context(unfiltered))
    extension.teardown(handle, context(unfiltered))
    assert set(unfiltered.census()) == foreign


def test_a_server_that_has_the_first_list_only_is_listed_by_that(fake: FakeE2B) -> None:
    fake.script.add(Fault(match=LIST, kind="status", status=404, body=UNROUTED, times=None))
    extension = E2BExtension()
    handle = made(fake)
    extension.check(context(fake))
    found = extension.inventory(context(fake))
    assert [sandbox_data(one.handle).id for one in found] == [sandbox_data(handle).id]
    assert extension.find(found[0].sandbox_id, context(fake)) is not None


def test_a_server_without_logs_is_told_from_a_sandbox_that_is_gone(fake: FakeE2B) -> None:
    fake.script.add(Fault(match="GET .*/logs", kind="status", status=404, body=UNROUTED, times=None))
    extension, handle = E2BExtension(), made(fake)
    streams = Streams(stdin=None, stdout=lambda _: None, stderr=lambda _: None)
    with pytest.raises(Unsupported, match="keeps no logs"):
        extension.logs(handle, streams, context(fake), service=None, follow=False, tail=None)


@pytest.mark.parametrize("name", ["exitCode", "exit_code"])
def test_an_exit_code_has_either_name_that_protocol_buffers_give_it(name: str) -> None:
    ended = frame({"event": {"end": {name: 7, "exited": True, "status": "exit status 7"}}})
    for size in (1, 3, len(ended)):
        parts = [ended[at : at + size] for at in range(0, len(ended), size)]
        (event,) = events([*parts, b"\x02", b"\0\0\0\x02{", b"}"])
        assert getattr(event, "end", None) is not None
        assert event.end.code == 7  # type: ignore[union-attr]


def test_a_small_archive_is_sent_with_its_length(fake: FakeE2B) -> None:
    """A server of HTTP/1.0, or one that knows no chunks, would take it for nothing."""
    extension, handle = E2BExtension(), made(fake)
    for size, told in ((10, True), (9 << 20, False)):
        extension.put_archive(handle, "/tmp/there", archive_of(size), context(fake))
        upload = fake.asked("POST /files")[-1]
        assert ("content-length" in upload.headers) is told
        assert ran(extension, handle, context(fake), ("wc", "-c", "/tmp/there/file"))[1].split()[0] == b"%d" % size


def test_another_servers_sandboxes_are_not_looked_for_at_e2b(fake: FakeE2B) -> None:
    """Promise 28: nor is their token sent there."""
    extension = E2BExtension()
    handle = extension.provision(spec(), context(fake))
    with pytest.raises(NotConfigured) as caught:
        extension.wait_ready(handle, context(fake, endpoints={"api": fake.url}))
    assert "E2B_SANDBOX_URL" in caught.value.hint
    extension.teardown(handle, context(fake))


def test_a_sandbox_that_does_not_answer_in_time_is_told_with_the_reason(fake: FakeE2B) -> None:
    extension = E2BExtension()
    handle = extension.provision(spec(), context(fake))
    fake.script.add(Fault(match="GET /health", kind="status", status=502, body=b"bad gateway", times=None))
    reached = {"api": fake.url, "sandbox": fake.url}
    with pytest.raises(Timeout, match=r"did not answer in time.*502") as caught:
        extension.wait_ready(handle, context(fake, endpoints=reached, seconds=2))
    assert "E2B_SANDBOX_URL" in caught.value.hint
    extension.teardown(handle, context(fake))
