"""Describe the API as OpenAPI, complete and true, from the same models that requests and responses use."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from sandboxer import __version__
from sandboxer.api import responses
from sandboxer.api.problem_details import MEDIA_TYPE, Problem
from sandboxer.documents import ExecResult, SandboxDocument, SnapshotDocument
from sandboxer.manager.establish.plan import Explanation
from sandboxer.manager.snapshots.take import VerifyReport
from sandboxer.manager.sweeps.reap import StaleReport
from sandboxer.manager.sweeps.report import Report
from sandboxer.manager.tokens import NewToken
from sandboxer.payments.credits import Balance

_REF: Final = "#/components/schemas/"
_MODELS: Final = (
    Problem, SandboxDocument, Report, StaleReport, Explanation, responses.SandboxList, SnapshotDocument,
    responses.SnapshotList, VerifyReport, responses.LeaseDocument, responses.LeaseList,
    ExecResult, responses.ProfileList, responses.ExtensionList, responses.EventList, responses.HostDocument,
    responses.UsageList, Balance, responses.HealthDocument, responses.TokenList, NewToken, responses.AuditList,
)  # fmt: skip
_EVERYWHERE: Final = (400, 401, 403, 408, 413, 422, 429, 500, 503)
"""Answers that any route may give: what the middleware refuses, a store that cannot be read, a server that is busy."""
_TEXT: Final = """
Establish sandboxes on many backends, and take them away again. Errors are `application/problem+json` with the fields
of sandboxer's error document. See docs/api.md.
"""

Responses = dict[int | str, dict[str, Any]]


def responses_of(
    *successes: tuple[int, str, str], problems: tuple[int, ...] = (), headers: Mapping[str, str] | None = None
) -> Responses:
    """The `responses` of a route: (status, model, description) of what it gives, and the errors of its own."""
    found: Responses = {}
    for status, model, text in successes:
        found[status] = {"description": text}
        if model:
            found[status]["content"] = {"application/json": {"schema": _reference(model)}}
        if headers:
            found[status]["headers"] = {
                name: {"description": meaning, "schema": {"type": "string"}} for name, meaning in headers.items()
            }
    for status in sorted({*_EVERYWHERE, *problems}):
        found[status] = {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": _reference("Problem")}},
        }
    return found


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document; made once."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    document = get_openapi(title="sandboxer", version=__version__, description=_TEXT.strip(), routes=app.routes)
    components = document.setdefault("components", {})
    _, schemas = msgspec.json.schema_components(_MODELS, ref_template=_REF + "{name}")
    components["schemas"] = {**components.get("schemas", {}), **schemas}
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    components["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "needed when the server has a token"}
    }
    document["security"] = [{"token": []}, {}]
    app.openapi_schema = document
    return document


def _reference(model: str) -> dict[str, str]:
    return {"$ref": _REF + model}
