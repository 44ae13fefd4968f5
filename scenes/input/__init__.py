"""From a scene's files to pixels: products, bands, grids, quality, metadata."""
