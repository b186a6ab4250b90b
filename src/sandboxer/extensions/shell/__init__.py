"""Files and processes inside a sandbox by its own POSIX shell: constant texts with arguments, over a `run` callable."""
