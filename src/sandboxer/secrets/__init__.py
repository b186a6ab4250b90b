"""Secret references to values, at the last moment. A value lives in `Secret`, which does not print."""

from sandboxer.secrets.reading import login_of, missing, present, resolve
from sandboxer.secrets.secret import Secret

__all__ = ["Secret", "login_of", "missing", "present", "resolve"]
