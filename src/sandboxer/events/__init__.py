"""Facts: made with a change (`facts`, pure), recorded by the store in the same write, told to neighbours (`relay`).

Here is what commands need. `relay.Relay` and `loop.RelayLoop` are imported where something is really sent.
"""

from sandboxer.events.facts import fact, initial_status, payload
from sandboxer.events.kick import kick

__all__ = ["fact", "initial_status", "kick", "payload"]
