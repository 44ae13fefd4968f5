"""A user's own labels: from files to a class for every cell, a probe fitted on them, and its score."""
