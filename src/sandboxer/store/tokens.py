"""`tokens.json`: the tokens of the HTTP API, as hashes; written like the store, read at each request.

A file that cannot be read lets nobody in: only a missing one means that there are no tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from sandboxer.errors import Conflict, NotFound, StoreCorrupt
from sandboxer.models import Token
from sandboxer.store.codec import UNREADABLE, check_keys
from sandboxer.store.document import AtomicDocument
from sandboxer.store.group_commit import GroupCommit
from sandboxer.store.parse_cache import ParseCache
from sandboxer.store.private_files import DOCTOR
from sandboxer.timing import now

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "tokens.json"
SCHEMA_VERSION: Final = 1
ENDED_SECONDS: Final = 30 * 86400
"""How long a token that was revoked or has expired is still listed."""
MOST: Final = 10_000
"""How many tokens there may be, ended ones included."""
_DIGEST: Final = 64


class _TokensDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    schema_version: int = SCHEMA_VERSION
    install: str = ""
    revision: int = 0
    tokens: list[Token] = []


class TokenIndex(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens as they are now, by id and by digest."""

    by_id: Mapping[str, Token] = {}
    by_digest: Mapping[str, Token] = {}


class TokenStore:
    """The tokens of one installation. May be used by any thread and process.

    Raises StoreCorrupt for a file that is unreadable, newer or another installation's (its bytes are kept), and
    Unavailable or Denied as the disk says."""

    def __init__(self, directory: Path, *, install: Callable[[], str], clock: Callable[[], float] = now) -> None:
        self._document = AtomicDocument(directory / FILE)
        self._commits = GroupCommit(self._document, read=self._content, write=self._commit)
        self._install = install
        self._clock = clock
        self._parsed = ParseCache(self._document, self._parse)

    @property
    def path(self) -> Path:
        """Where they are kept."""
        return self._document.path

    def known(self) -> TokenIndex:
        """All that are kept, live or not; parsed again only when the file has changed."""
        found = self._parsed.read()
        return TokenIndex() if found is None else found[1]

    def add(self, token: Token) -> None:
        """Keep a new token. Raises Conflict when there are too many."""
        install = self._install()  # may take the store's own lock: never inside ours

        def decide(document: _TokensDocument) -> tuple[_TokensDocument, None]:
            kept = [one for one in document.tokens if not _gone(one, self._clock())]
            if len(kept) >= MOST:
                raise Conflict(f"there are {len(kept)} tokens", hint="revoke some: see `sandboxer tokens list`")
            return msgspec.structs.replace(document, install=install, tokens=[*kept, token]), None

        self._commits.change(decide)

    def revoke(self, token_id: str) -> Token:
        """End a token, at once; again is fine. Raises NotFound."""

        def decide(document: _TokensDocument) -> tuple[_TokensDocument, Token]:
            position = next((n for n, one in enumerate(document.tokens) if one.id == token_id), None)
            if position is None:
                raise NotFound(f"no token {token_id[:80]!r}", hint="run `sandboxer tokens list`")
            one = document.tokens[position]
            if one.revoked_at is not None:
                return document, one
            ended = msgspec.structs.replace(one, revoked_at=self._clock())
            tokens = [*document.tokens[:position], ended, *document.tokens[position + 1 :]]
            return msgspec.structs.replace(document, tokens=tokens), ended

        # What ends somebody's rights must work on a full disk too.
        return self._commits.change(decide, must_succeed=True)

    # -- the file -------------------------------------------------------------------------------------------------

    def _content(self) -> _TokensDocument:
        found = self._parsed.read()
        return _TokensDocument() if found is None else found[0]

    def _parse(self, data: bytes) -> tuple[_TokensDocument, TokenIndex]:
        try:
            document = msgspec.json.decode(data, type=_TokensDocument)
            check_keys(data)
        except (*UNREADABLE, ValueError) as error:
            raise StoreCorrupt(f"{self.path} is not a list of tokens: {error}", hint=DOCTOR) from error
        if document.schema_version != SCHEMA_VERSION:
            raise StoreCorrupt(
                f"{self.path} was written by another sandboxer (schema version {document.schema_version})", hint=DOCTOR
            )
        if document.install != self._install():
            raise StoreCorrupt(f"{self.path} belongs to another installation ({document.install!r})", hint=DOCTOR)
        known = _indexed(document)
        if known is None:
            raise StoreCorrupt(f"{self.path} does not hold what it should: a token is there twice", hint=DOCTOR)
        if any(one.role != "admin" and one.consumer is None for one in document.tokens):
            raise StoreCorrupt(f"{self.path} does not hold what it should: a token is for no consumer", hint=DOCTOR)
        return document, known

    def _commit(self, before: _TokensDocument, after: _TokensDocument, must_succeed: bool) -> None:
        document = msgspec.structs.replace(after, revision=before.revision + 1)
        known = _indexed(document) or TokenIndex()
        self._parsed.replace((document, known), _render(document), must_succeed=must_succeed)


def _indexed(document: _TokensDocument) -> TokenIndex | None:
    by_id = {one.id: one for one in document.tokens}
    by_digest = {one.digest: one for one in document.tokens if len(one.digest) == _DIGEST}
    if not len(document.tokens) == len(by_id) == len(by_digest):
        return None
    return TokenIndex(by_id=by_id, by_digest=by_digest)


def _gone(token: Token, at: float) -> bool:
    ended = token.revoked_at if token.revoked_at is not None else token.expires_at
    return ended is not None and ended + ENDED_SECONDS < at


def _render(document: _TokensDocument) -> bytes:
    """A token a line; the count of writes first, so that two versions never look alike."""
    encode = msgspec.json.encode
    head = b'{"schema_version":%d,"install":%s,"revision":%d,\n"tokens":[' % (
        document.schema_version,
        encode(document.install),
        document.revision,
    )
    lines = b",\n".join(encode(one) for one in document.tokens)
    return head + (b"\n" + lines + b"\n" if lines else b"") + b"]}\n"
