"""Servers that speak Daytona's API in fewer or other words than Daytona's own."""

from __future__ import annotations

import pytest

from sandboxer.errors import BackendError
from sandboxer.extensions.daytona import DaytonaExtension
from tests.extensions.calls import archive_of
from tests.extensions.daytona.harness import context, made, run
from tests.fakes import Fault
from tests.fakes.daytona import FakeDaytona

LOOK = "GET /api/sandbox/sbx-[^/]+"
OTHER_WORDS = [b"", b"not found", {"detail": "Not Found"}, {"error": "no such sandbox"}, b"<html>404</html>"]


@pytest.mark.parametrize("body", OTHER_WORDS, ids=str)
def test_a_404_in_other_words_is_believed_where_the_listing_agrees(daytona_cloud: FakeDaytona, body: object) -> None:
    extension, handle = DaytonaExtension(), made(daytona_cloud)
    daytona_cloud.script.add(Fault(match=LOOK, kind="status", status=404, body=body, skip=0, times=None))
    assert extension.status(handle, context(daytona_cloud)).presence == "unknown", "the listing still shows it"
    with pytest.raises(BackendError):
        extension.find(str(handle.data["name"]).removeprefix("sbx-"), context(daytona_cloud))
    extension.teardown(handle, context(daytona_cloud))
    assert list(daytona_cloud.census()) == []
    assert extension.status(handle, context(daytona_cloud)).presence == "absent"


@pytest.mark.parametrize("body", OTHER_WORDS, ids=str)
def test_a_404_in_other_words_proves_nothing_where_nothing_is_daytonas(
    daytona_cloud: FakeDaytona, body: object
) -> None:
    """Promise 5: a web server that stands in its place knows no sandbox, and they live all the same."""
    extension, handle = DaytonaExtension(), made(daytona_cloud)
    daytona_cloud.script.add(Fault(match="* .*", kind="status", status=404, body=body, times=None))
    assert extension.status(handle, context(daytona_cloud)).presence == "unknown"
    with pytest.raises(BackendError):
        extension.teardown(handle, context(daytona_cloud))
    assert len(daytona_cloud.census()) == 1


def test_a_toolbox_whose_address_is_not_told_is_asked_for(daytona_cloud: FakeDaytona) -> None:
    daytona_cloud.say_toolbox("")
    extension = DaytonaExtension()
    handle = made(daytona_cloud)
    assert handle.data["toolbox"] is None
    assert run(daytona_cloud, handle, "echo", "ran") == (0, b"ran\n", b"")
    assert len(daytona_cloud.asked("GET .*/toolbox-proxy-url")) >= 1
    extension.teardown(handle, context(daytona_cloud))


def test_a_small_archive_is_sent_with_its_length(daytona_cloud: FakeDaytona) -> None:
    """A server of HTTP/1.0, or one that knows no chunks, would take it for nothing."""
    extension, handle = DaytonaExtension(), made(daytona_cloud)
    for size, told in ((1 << 20, True), (9 << 20, False)):
        extension.put_archive(handle, "there", archive_of(size), context(daytona_cloud))
        upload = daytona_cloud.asked("POST .*/files/bulk-upload")[-1]
        assert ("content-length" in upload.headers) is told
        assert run(daytona_cloud, handle, "wc", "-c", "there/file")[1].split()[0] == b"%d" % size
