"""The sanity experiments: overfit, routing, metadata."""
