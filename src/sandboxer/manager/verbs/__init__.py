"""Verbs of `SandboxManager`, in groups; `manager.py` makes one class of them."""
