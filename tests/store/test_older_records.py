"""Records of versions before this one."""

from __future__ import annotations

import json
from pathlib import Path

from sandboxer.documents import sandbox_document
from sandboxer.models import Isolation
from sandboxer.store import codec
from tests.store.records import sandbox


def test_a_record_from_before_system_calls_were_told_says_that_it_does_not_know() -> None:
    record = sandbox(isolation=Isolation(class_="namespace", network="none", syscalls="filtered", notes=["a note"]))
    line = json.loads(codec.encode_sandbox(record))
    assert line["isolation"].pop("syscalls") == "filtered"
    older = codec.decode_sandbox(json.dumps(line).encode(), Path("sandboxes.json"))
    assert older.isolation == Isolation(class_="namespace", network="none", notes=["a note"])
    shown = sandbox_document(older)["isolation"]
    assert shown == {"class": "namespace", "network": "none", "syscalls": "unknown", "notes": ["a note"]}
