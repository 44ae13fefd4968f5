"""What is written of a scene: embeddings, maps, tables, pictures."""
