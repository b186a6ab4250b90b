"""ext.daytona: sandboxes of Daytona, by its HTTP API and the toolbox inside each sandbox.

options.py     what a profile may ask for, what that is allotted, and what of a requirement can be met (pure)
view.py        what the API says of a sandbox, read without trusting it (pure)
handle.py      what is remembered of a sandbox (pure)
refusals.py    what an answer that was not wanted means (pure)
cloud.py       the two APIs: Daytona's own, and the toolbox
making.py      create until it exists, whatever happens to the answer; ready, stopped, gone
scripts.py     the shell text that runs inside
feeding.py     a command's input in pieces
inside.py      running a command inside
files.py       trees in and out, as tar
logs.py        what the entry point and the build wrote
keeping.py     snapshots
ssh.py         the gateway
describing.py  how it is reached and isolated
extension.py   the contract
"""

from sandboxer.extensions.daytona.extension import DaytonaExtension

__all__ = ["DaytonaExtension"]
