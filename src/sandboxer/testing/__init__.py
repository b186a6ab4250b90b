"""Shipped for authors of extensions: a fake backend, fakes of neighbours, and the conformance suite."""
