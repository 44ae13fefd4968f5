"""A Landsat scene to embeddings and maps."""
