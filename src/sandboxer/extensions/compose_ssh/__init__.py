"""ext.compose-ssh: compose stacks on a placement host, by whichever compose program the host has."""

from sandboxer.extensions.compose_ssh.extension import ComposeExtension

__all__ = ["ComposeExtension"]
