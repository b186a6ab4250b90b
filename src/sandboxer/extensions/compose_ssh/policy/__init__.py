"""The gate for compose projects: an allow-list over keys and values of the compose specification (contract §8)."""

from sandboxer.extensions.compose_ssh.policy.grants import Grants
from sandboxer.extensions.compose_ssh.policy.judging import judge
from sandboxer.extensions.compose_ssh.policy.tree import LocalTree
from sandboxer.extensions.compose_ssh.policy.values import Program, Tree, Verdict, Violation

__all__ = ["Grants", "LocalTree", "Program", "Tree", "Verdict", "Violation", "judge"]
