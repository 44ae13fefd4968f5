"""A dataset's embeddings as one interactive page."""
