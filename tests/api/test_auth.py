"""Who is let in, decided from the head of a request alone (promise 29)."""

from __future__ import annotations

import pytest

from sandboxer.api.auth import Rejection, bearer_token, is_loopback, rejection

Headers = list[tuple[bytes, bytes]]
LOCAL: Headers = [(b"host", b"127.0.0.1:8377")]
BEARER = (b"authorization", b"Bearer s3cret")


def status(headers: Headers, *, token: str | None = None, path: str = "/v1/sandboxes", **ends: str) -> int:
    known = bool(token) and bearer_token(headers) == (token or "").encode()
    found: Rejection | None = rejection(headers, path=path, closed=bool(token), known=known, **ends)
    return 200 if found is None else found.status


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8377", "127.0.0.9", "[::1]", "[::1]:8377"]
)
def test_loopback_names_are_answered_without_a_token(host: str) -> None:
    assert status([(b"host", host.encode())]) == 200


@pytest.mark.parametrize(
    "host",
    [
        "example.org", "example.org:8377", "localhost.example.org", "127.0.0.1.example.org", "localhost:8377:8377",
        "localhost@example.org", "127.0.0.1:", "127.0.0.1:123456", " localhost", "localhost,example.org",
        "0.0.0.0",  # noqa: S104 - nothing is bound
        "[::]", "[::2]", "192.168.0.1", "128.0.0.1", "", "2130706433", "0x7f000001", "localhost\x00",
        "localhost\xff", "localhost/x",
    ],
)  # fmt: skip
def test_any_other_name_is_refused_without_a_token(host: str) -> None:
    """DNS rebinding: a page of example.org whose name now means 127.0.0.1 still says example.org."""
    assert status([(b"host", host.encode("latin-1"))]) == 403


def test_a_request_without_a_host_or_with_two_is_refused() -> None:
    assert status([]) == 403
    assert status([], token="s3cret") == 403
    assert status([(b"authorization", b"Bearer wrong")], token="s3cret") == 403
    for token in (None, "s3cret"):
        assert status([*LOCAL, *LOCAL, BEARER], token=token) == 403
        assert status([*LOCAL, (b"Host", b"localhost"), BEARER], token=token) == 403


def test_a_token_that_counts_may_come_without_a_host() -> None:
    """By HTTP/1.0. The Host keeps web pages out, which always name one and have no token."""
    for path in ("/", "/openapi.json", "/v1/sandboxes", "/readyz"):
        assert status([BEARER], token="s3cret", path=path) == 200
        assert status([BEARER, (b"origin", b"http://example.org")], token="s3cret", path=path) == 403
    assert status([BEARER]) == 403, "where there is none, it proves nothing"


def test_a_probe_of_readiness_may_leave_the_host_out() -> None:
    """It was refused where liveness was answered."""
    assert status([], path="/readyz") == 200
    assert status([], path="/readyz", client="192.0.2.1") == 403
    assert status([*LOCAL, *LOCAL], path="/readyz") == 403
    assert status([(b"host", b"example.org")], path="/readyz") == 403
    assert status([], token="s3cret", path="/readyz") == 401, "it tells of the store, so it needs the token"


def test_a_probe_of_liveness_may_leave_the_host_out() -> None:
    """As load balancers do by HTTP/1.0; no browser does. What a browser says besides still counts."""
    for token in (None, "s3cret"):
        assert status([], token=token, path="/healthz") == 200
        assert status([(b"origin", b"http://example.org")], token=token, path="/healthz") == 403
        assert status([*LOCAL, *LOCAL], token=token, path="/healthz") == 403
    assert status([], path="/healthz", client="192.0.2.1") == 403
    assert status([], token="s3cret", path="/healthz", client="192.0.2.1") == 200


def test_with_a_token_any_well_formed_host_will_do() -> None:
    assert status([(b"host", b"sandboxer.example.org"), BEARER], token="s3cret") == 200
    assert status([(b"host", b"[2001:db8::1]:443"), BEARER], token="s3cret") == 200
    assert status([(b"host", b"a b"), BEARER], token="s3cret") == 403


@pytest.mark.parametrize(
    "origin",
    [
        "http://example.org", "https://127.0.0.1.example.org", "null", "", "http://127.0.0.1:9999", "http://localhost:8377",
        "file://", "http://127.0.0.1:8377/", "ftp://127.0.0.1:8377", "http://127.0.0.1:8377 http://example.org",
    ],
)  # fmt: skip
def test_a_foreign_origin_is_refused_with_and_without_a_token(origin: str) -> None:
    headers = [*LOCAL, (b"origin", origin.encode())]
    assert status(headers) == 403
    assert status([*headers, BEARER], token="s3cret") == 403


def test_our_own_origin_on_loopback_is_let_in() -> None:
    assert status([*LOCAL, (b"origin", b"http://127.0.0.1:8377")]) == 200
    assert status([*LOCAL, (b"origin", b"http://127.0.0.1:8377"), (b"origin", b"http://example.org")]) == 403


def test_no_web_page_elsewhere_is_our_own_origin() -> None:
    headers = [(b"host", b"example.org"), (b"origin", b"https://example.org"), BEARER]
    assert status(headers, token="s3cret") == 403


def test_a_browser_says_when_a_plain_get_comes_from_another_site() -> None:
    assert status([*LOCAL, (b"sec-fetch-site", b"cross-site")]) == 403
    assert status([*LOCAL, (b"sec-fetch-site", b"same-site")]) == 403
    assert status([*LOCAL, (b"sec-fetch-site", b"none")]) == 200


@pytest.mark.parametrize(
    "given",
    [
        [], [b""], [b"Bearer"], [b"Bearer "], [b"Bearer wrong"], [b"Bearer s3cre"], [b"Bearer s3crets"], [b"s3cret"],
        [b"Basic s3cret"], [b"Bearer s3cret", b"Bearer s3cret"], [b"Bearer s3cret, Bearer x"], [b"Bearer \xff"],
    ],
)  # fmt: skip
def test_without_the_right_token_it_is_401(given: list[bytes]) -> None:
    assert status([*LOCAL, *((b"authorization", value) for value in given)], token="s3cret") == 401


def test_the_right_token_is_let_in() -> None:
    assert status([*LOCAL, BEARER], token="s3cret") == 200
    assert status([*LOCAL, (b"authorization", b"bearer s3cret")], token="s3cret") == 200
    assert status([*LOCAL, (b"authorization", "Bearer schlüssel".encode())], token="schlüssel") == 200


def test_only_liveness_needs_no_token() -> None:
    assert status(LOCAL, token="s3cret", path="/healthz") == 200
    for path in ("/readyz", "/openapi.json", "/v1/sandboxes", "/healthz/", "/healthz/x", "/", "/nothing"):
        assert status(LOCAL, token="s3cret", path=path) == 401, path
    assert status([(b"host", b"127.0.0.1"), (b"origin", b"null")], token="s3cret", path="/healthz") == 403


def test_an_empty_token_is_none() -> None:
    assert status([(b"host", b"example.org"), (b"authorization", b"Bearer ")], token="") == 403


def test_without_a_token_other_machines_are_refused_whoever_opened_the_socket() -> None:
    """`uvicorn --host 0.0.0.0 sandboxer.api.app:app` is closed as well."""
    assert status(LOCAL, server="192.0.2.7", client="127.0.0.1") == 403
    assert status(LOCAL, server="127.0.0.1", client="192.0.2.9") == 403
    assert status(LOCAL, server="::1", client="::1") == 200
    assert status(LOCAL, server="::ffff:127.0.0.1", client="::ffff:127.0.0.1") == 200
    assert status(LOCAL, server="/run/sandboxer.sock", client="") == 200
    assert status([*LOCAL, BEARER], token="s3cret", server="192.0.2.7", client="192.0.2.9") == 200


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),  # noqa: S104 - nothing is bound
        ("::", False), ("192.0.2.1", False), ("example.org", False), ("", False),
        ("::ffff:192.0.2.1", False), ("localhost.example.org", False),
    ],
)  # fmt: skip
def test_what_is_loopback(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback
