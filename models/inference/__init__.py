"""From patches as people hold them to embeddings: what `MOEMAE.embed` and every script that embeds use."""
