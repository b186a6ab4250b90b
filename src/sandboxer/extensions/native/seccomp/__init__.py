"""The seccomp filter of native sandboxes: which system calls programs inside may make."""

from sandboxer.extensions.native.seccomp.compiler import MACHINES, program

__all__ = ["MACHINES", "program"]
