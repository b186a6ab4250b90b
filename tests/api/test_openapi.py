"""The description of the API names what is there."""

from __future__ import annotations

import json
import re

from sandboxer.api.app import app


def test_every_model_that_the_description_names_is_in_it() -> None:
    """A route names its models by text: one that is called otherwise now would describe nothing."""
    document = app.openapi()
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert named
    assert named - document["components"]["schemas"].keys() == set()
