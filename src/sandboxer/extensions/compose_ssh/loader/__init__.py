"""The loader of compose projects: files, variables, includes and extends resolved as docker compose v2 does."""

from sandboxer.extensions.compose_ssh.loader.project import Origin, Path, Project, Reader

__all__ = ["Origin", "Path", "Project", "Reader"]
