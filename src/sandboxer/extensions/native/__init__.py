"""ext.native: sandboxes from Linux namespaces and bubblewrap, without a daemon or a container engine.

place.py       names and paths of one sandbox (pure)
options.py     what a profile may ask for
facts.py       what a host says of itself, and what is missing on it (pure)
plan.py        the words of bwrap, the generated start file, the notes (pure)
seccomp/       the filter of system calls
guard/         our one program on hosts: holds the namespaces, is process 1, runs commands inside
host/*.sh      what runs on the host; POSIX sh, /proc, coreutils and util-linux
scripts.py     the words that run those
runtime.py     running them: claim, start, look, list, end
inside.py      running something inside
extension.py   the contract
"""

from sandboxer.extensions.native.extension import NativeExtension

__all__ = ["NativeExtension"]
