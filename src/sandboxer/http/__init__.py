"""Call providers' HTTP APIs: a deadline on every wait, bounded responses, and errors that say what may have happened.

api = Api(base, name="E2B", headers=lambda: {"X-API-Key": key.reveal()})
answer = api.call("POST", "/v2/sandboxes", deadline, json={...}, expect=(201,))
answer.json()
with api.stream("POST", "/process.Process/Start", deadline, content=...) as streamed:
    for chunk in streamed.chunks(): ...
"""

from sandboxer.http.address import BaseURL, parse_base_url, segment
from sandboxer.http.client import ApiClient
from sandboxer.http.errors import response_error
from sandboxer.http.response import Response, StreamedResponse, retry_after, without_html

__all__ = [
    "ApiClient",
    "BaseURL",
    "Response",
    "StreamedResponse",
    "parse_base_url",
    "response_error",
    "retry_after",
    "segment",
    "without_html",
]
