"""Judge compose projects by an allow-list over keys and values of the compose specification (contract §8)."""

from sandboxer.extensions.compose_ssh.policy.dialect import write
from sandboxer.extensions.compose_ssh.policy.evaluation import evaluate
from sandboxer.extensions.compose_ssh.policy.gate import PolicyInput
from sandboxer.extensions.compose_ssh.policy.grants import Grants
from sandboxer.extensions.compose_ssh.policy.local_tree import LocalTree
from sandboxer.extensions.compose_ssh.policy.verdict import ComposeProgram, SourceTree, Verdict, Violation

__all__ = [
    "ComposeProgram",
    "Grants",
    "LocalTree",
    "PolicyInput",
    "SourceTree",
    "Verdict",
    "Violation",
    "evaluate",
    "write",
]
