"""Probes of frozen embeddings and the features they are compared with."""
