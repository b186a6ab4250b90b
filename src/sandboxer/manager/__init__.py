"""The verbs of sandboxer (`SandboxManager`), and the parts that they stand on (`Services`)."""

from sandboxer.manager.manager import SandboxManager
from sandboxer.manager.services import Services

__all__ = ["SandboxManager", "Services"]
