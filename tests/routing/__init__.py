"""Routing: pure functions."""
