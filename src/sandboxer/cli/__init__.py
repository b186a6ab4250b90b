"""The command: parse, one call on the manager, render."""
