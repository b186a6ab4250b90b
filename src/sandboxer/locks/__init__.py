"""Who works on a sandbox, who uses it, and whether a process still lives: kept in files, ended by the death of the
process, at no cost to the store."""

from sandboxer.locks.lease_files import Lease
from sandboxer.locks.leases import Leases
from sandboxer.locks.owner import owner_state, this_owner
from sandboxer.locks.sandbox_lock import SandboxLock, SandboxLocks
from sandboxer.locks.slots import Slots

__all__ = ["Lease", "Leases", "SandboxLock", "SandboxLocks", "Slots", "owner_state", "this_owner"]
