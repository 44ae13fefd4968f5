"""The study of what the experts do."""
