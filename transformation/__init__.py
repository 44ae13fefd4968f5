"""From digital numbers to the model's input: crops, z-scores, nodata masks."""
