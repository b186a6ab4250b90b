"""Send one event over HTTP, with an end to every wait."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import quote, urlsplit

from sandboxer.errors import BackendError, SandboxerError, Timeout, Unavailable
from sandboxer.events.sink import DeliveryResult, RetryLater, Sink, SinkDown, delivery_result
from sandboxer.http import ApiClient, StreamedResponse
from sandboxer.models import Event
from sandboxer.timing import Deadline

REQUEST_SECONDS: Final = 5.0
"""The end of a whole request, from looking the name up to the last byte of the answer."""
_BODY_LIMIT: Final = 64 * 1024
_SLOW: Final = "no answer in time"


class EventSender:
    """Sends events to one sink. Redirects are not followed: they would carry the token elsewhere."""

    def __init__(self, sink: Sink, *, seconds: float = REQUEST_SECONDS) -> None:
        parts = urlsplit(sink.url)
        self._sink = sink
        self._seconds = seconds
        self._target = quote(f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}", safe="/?%:@!$&'()*+,;=~")
        self._api = ApiClient(f"{parts.scheme}://{parts.netloc}", name=sink.name, headers=self._authorization)

    def deliver(self, event: Event, deadline: Deadline) -> DeliveryResult:
        """Post an event and interpret the response. What the network or the neighbour does is in the result.

        Raises NotConfigured when the proxy that the environment names cannot be used."""
        sink = self._sink
        end = deadline.shorter(self._seconds)
        try:
            with self._api.stream(
                "POST", self._target, end, json=sink.body(event), headers=sink.headers(event), expect=None
            ) as answer:
                result = delivery_result(answer.status, answer.headers.get("retry-after"), now=time.time())
                with suppress(SandboxerError):  # the status says it all; the rest only frees the connection
                    _drain(answer)
                return result
        except Timeout as error:
            return RetryLater(_SLOW, slow=True) if error.outcome == "unknown" else SinkDown(_SLOW)
        except Unavailable as error:
            if error.outcome == "unknown":
                return RetryLater("the connection broke")
            return SinkDown(error.message.removeprefix(f"{self._api.base.authority} cannot be reached: "))
        except BackendError:
            return RetryLater("it does not answer in HTTP")

    def _authorization(self) -> Mapping[str, str]:
        token = self._sink.token
        return {} if token is None else {"Authorization": f"Bearer {token.reveal()}"}


def _drain(answer: StreamedResponse) -> None:
    seen = 0
    for chunk in answer.chunks():
        seen += len(chunk)
        if seen > _BODY_LIMIT:
            return
