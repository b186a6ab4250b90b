"""ext.modal: sandboxes of Modal (containers under gVisor, with or without GPUs), by Modal's own SDK.

The SDK is the extra `sand-boxer[modal]`; it is imported when it is first needed, and only by `client`."""

from sandboxer.extensions.modal.extension import ModalExtension

__all__ = ["ModalExtension"]
