"""A fake E2B: its control plane and the envds of its sandboxes, with real files and processes.

It is held to E2B's own clients (tests/extensions/e2b): what they can do with it, they can do with E2B.
"""

from tests.fakes.e2b.cloud import KEY, TEMPLATES, FakeE2B, no_room, rate_limited
from tests.fakes.e2b.state import Template

__all__ = ["KEY", "TEMPLATES", "FakeE2B", "Template", "no_room", "rate_limited"]
