"""What every study builds on: stages, data, encoders, embeddings, scores."""
