"""Matrix products and padding, by device."""
