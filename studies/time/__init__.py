"""What a series of embeddings is worth beside a single date, on simulated crops and woods."""
