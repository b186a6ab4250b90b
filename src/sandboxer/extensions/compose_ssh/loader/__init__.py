"""Load compose projects: files, variables, includes and extends resolved as docker compose v2 does."""

from sandboxer.extensions.compose_ssh.loader.directory import DirectoryReader
from sandboxer.extensions.compose_ssh.loader.dump import dump
from sandboxer.extensions.compose_ssh.loader.limits import LoadLimits
from sandboxer.extensions.compose_ssh.loader.load import CANDIDATES, file_names, load
from sandboxer.extensions.compose_ssh.loader.project import FileReader, Origin, Path, Project

__all__ = [
    "CANDIDATES",
    "DirectoryReader",
    "FileReader",
    "LoadLimits",
    "Origin",
    "Path",
    "Project",
    "dump",
    "file_names",
    "load",
]
