"""Sandboxes that are plain directories and processes on this machine: what the stub and the fake share.

A directory `sbx-<id>` holds the marker file with the labels, the workspace and a log. It isolates nothing: commands run
with the rights of whoever runs sandboxer, in an environment of their own.

directory_extension.py  the class of the contract, which both inherit
sandbox.py              the directory of one sandbox: its handle, its marker file, the names in it
files.py                trees in and out of a workspace as tar
"""
