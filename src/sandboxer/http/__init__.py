"""Calls to other people's HTTP APIs: an end to every wait, bounded answers, and errors that say what may have happened.

api = Api(base, name="E2B", headers=lambda: {"X-API-Key": key.reveal()})
answer = api.call("POST", "/v2/sandboxes", deadline, json={...}, expect=(201,))
answer.json()
with api.stream("POST", "/process.Process/Start", deadline, content=...) as streamed:
    for chunk in streamed.chunks(): ...
"""

from sandboxer.http.address import Base, parse_base, segment
from sandboxer.http.answer import Answer, Streamed, retry_after
from sandboxer.http.api import Api
from sandboxer.http.refusals import refusal

__all__ = ["Answer", "Api", "Base", "Streamed", "parse_base", "refusal", "retry_after", "segment"]
