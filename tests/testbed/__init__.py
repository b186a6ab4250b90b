"""Real programs for tests and benchmarks to talk to: sshd, container engines, faulty networks, a census of leftovers.

Nothing here knows the package under test. `scripts/testbed/install` installs what these modules start.
"""
