"""The HTTP shell: thin routes over the manager (docs/api.md)."""
