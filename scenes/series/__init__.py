"""Several dates of one place: cells on one lattice, and what has changed."""
