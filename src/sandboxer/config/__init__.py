"""Paths, settings, profiles and manifests: the only reader of YAML settings and of the environment."""
