"""Take, keep, restore and delete snapshots."""
