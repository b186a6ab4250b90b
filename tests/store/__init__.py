"""Tests of the stores: one contract for all of them, and what is special to files on a disk."""
