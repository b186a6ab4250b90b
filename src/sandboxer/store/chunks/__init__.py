"""Keep byte streams as chunks: cut where their contents say, each kept once, compressed, told apart by its SHA-256.

chunker.py   where a stream is cut
packs.py     files of many chunks, each with its index at its end
recipes.py   what a snapshot is made of: a file each, the only thing that keeps chunks alive
room.py      what all of it may take
writing.py   a snapshot that is being made
decoding.py  chunks decoded ahead, once for all who read the same
reading.py   a snapshot that is being read
store.py     the store of one consumer: write, read, verify, delete, collect

A directory of it needs nothing else: no index can disagree with the packs, and no list with the recipes.
"""

from sandboxer.store.chunks.reading import Damage, SnapshotReader
from sandboxer.store.chunks.store import ChunkStore, Collected
from sandboxer.store.chunks.writing import SnapshotWriter, StreamWriter

__all__ = ["ChunkStore", "Collected", "Damage", "SnapshotReader", "SnapshotWriter", "StreamWriter"]
