"""Read, judge and copy directory trees: ignore rules, patterns, tar and rsync."""
