"""A page that embeds scenes in the browser: its source, and the folder that it is exported to."""
