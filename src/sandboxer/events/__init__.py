"""Events: built with a change (`builder`, pure), recorded by the store in the same write, sent to neighbours (`relay`).

Here is what commands need. `relay.Relay` and `loop.RelayLoop` are imported where something is really sent.
"""

from sandboxer.events.background import start_relay_process
from sandboxer.events.builder import build_event, initial_status, new_event_id, payload

__all__ = ["build_event", "initial_status", "new_event_id", "payload", "start_relay_process"]
