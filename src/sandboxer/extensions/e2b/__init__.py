"""ext.e2b: sandboxes of E2B, or of a server that speaks its API, over plain HTTP."""

from sandboxer.extensions.e2b.extension import E2BExtension

__all__ = ["E2BExtension"]
