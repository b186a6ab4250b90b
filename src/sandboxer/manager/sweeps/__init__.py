"""Sweep over all sandboxes: end what is over, settle what is unclear, reap what is stale."""
