"""A fake Daytona: its API with states, timers, quotas and cursors, and toolboxes with real files and processes behind.

fake.py       the server: keys, routes, census
control.py    sandboxes, in Daytona's own API
ways.py       ways into them
keeping.py    snapshots
estate.py     sandboxes and snapshots, and what time does to them
documents.py  how they are shown
toolbox.py    what runs and lies inside
sessions.py   shells that stay
forms.py      multipart forms
"""

from tests.fakes.daytona.fake import KEY, FakeDaytona
from tests.fakes.daytona.state import Quota

__all__ = ["KEY", "FakeDaytona", "Quota"]
