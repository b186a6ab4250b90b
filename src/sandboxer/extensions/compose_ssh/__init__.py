"""ext.compose-ssh: compose stacks on a placement host, by whichever compose program the host has."""

from sandboxer.extensions.compose_ssh.adapter import ComposeExtension

__all__ = ["ComposeExtension"]
