"""Datasets to embeddings."""
