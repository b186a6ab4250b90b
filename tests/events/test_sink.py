"""Sinks: addresses, tokens, and what answers mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.errors import Invalid, NotConfigured
from sandboxer.events.sink import (
    Delivered,
    Rejected,
    RetryLater,
    SinkDown,
    delivery_result,
    parse_sink_url,
    parse_token,
    state_hub,
)
from sandboxer.models import HubSettings


@pytest.mark.parametrize(
    ("text", "url", "shown"),
    [
        ("http://hub", "http://hub/progress", "http://hub"),
        ("http://hub/", "http://hub/progress", "http://hub"),
        ("https://hub.example.org:8443/api/v1/", "https://hub.example.org:8443/api/v1/progress", "https://hub.example.org:8443"),
        ("http://[::1]:80", "http://[::1]:80/progress", "http://[::1]:80"),
        ("http://hub/x?team=a#top", "http://hub/x/progress?team=a", "http://hub"),
    ],
)  # fmt: skip
def test_the_path_is_added_to_the_configured_address(text: str, url: str, shown: str) -> None:
    sink = state_hub(HubSettings(url=text))
    assert (sink.url, sink.shown) == (url, shown)


@pytest.mark.parametrize(
    "text",
    ["hub", "ftp://hub", "file:///etc/passwd", "http://", "http://:80", "http://hub:port", "http://a b", "http://h\nx",
     "//hub", "http://[::1", "http://-h", "http://ops:canary-secret@hub", "http://h:99999", "unix:///run/x"],
)  # fmt: skip
def test_what_is_no_address_is_invalid_and_credentials_are_not_quoted(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        state_hub(HubSettings(url=text))
    assert "canary-secret" not in f"{caught.value} {caught.value.hint}"
    assert caught.value.hint


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_invalid(text: str) -> None:
    try:
        parse_sink_url(text, "/progress", what="state_hub.url")
        parse_sink_url("http://" + text, "/progress", what="state_hub.url")
    except Invalid:
        return


def test_without_an_address_it_is_not_configured() -> None:
    with pytest.raises(NotConfigured) as caught:
        state_hub(HubSettings(token="x"))
    assert "SANDBOXER_STATE_HUB_URL" in caught.value.hint


def test_a_token_that_does_not_fit_into_a_header_is_invalid_and_not_quoted() -> None:
    for token in ("canary secret", "canary-\r\nsecret: x", "canary-ü"):
        with pytest.raises(Invalid) as caught:
            parse_token(token, what="state_hub.token")
        assert "canary" not in str(caught.value)
    assert "canary" not in repr(state_hub(HubSettings(url="http://hub", token="canary")))
    assert parse_token("", what="state_hub.token") is None


def test_each_answer_means_sent_refused_later_or_down() -> None:
    meaning: dict[type, list[int]] = {Delivered: [], Rejected: [], RetryLater: [], SinkDown: []}
    for status in range(200, 600):
        meaning[type(delivery_result(status, None, now=0))].append(status)
    assert meaning[Delivered] == list(range(200, 300))
    assert meaning[SinkDown] == list(range(300, 400))
    assert meaning[Rejected] == [status for status in range(400, 500) if status not in (408, 425, 429)]
    assert meaning[RetryLater] == [408, 425, 429, *range(500, 600)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("17", 17.0), (" 3 ", 3.0), ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0), ("soon", None), ("-1", None),
     ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("9" * 5000, 999999999.0), (None, None), ("1.5", None)],
)  # fmt: skip
def test_a_pause_that_is_asked_for_is_understood(text: str | None, seconds: float | None) -> None:
    answer = delivery_result(503, text, now=10.0)
    assert isinstance(answer, RetryLater)
    assert answer.after == seconds
