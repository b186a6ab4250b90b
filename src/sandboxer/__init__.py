"""sandboxer establishes sandboxes: one way to ask, many backends to answer."""

__version__ = "0.1.0"
