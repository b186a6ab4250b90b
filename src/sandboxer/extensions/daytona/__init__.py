"""ext.daytona: sandboxes of Daytona, by its HTTP API and the toolbox inside each sandbox."""

from sandboxer.extensions.daytona.extension import DaytonaExtension

__all__ = ["DaytonaExtension"]
