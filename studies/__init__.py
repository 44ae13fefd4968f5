"""Reproduction: runs of the other rooms, done once, set beside each other and beside what was published."""
