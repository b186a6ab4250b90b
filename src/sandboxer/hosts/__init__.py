"""Placement hosts, local and over SSH, behind one interface: the only place that starts programs or opens SSH."""
