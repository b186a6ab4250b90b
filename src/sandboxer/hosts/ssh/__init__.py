"""Reach a host over SSH: its configuration, its keys, the connections, and the programs that run there."""
