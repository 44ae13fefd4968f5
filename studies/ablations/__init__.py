"""Studies that change one thing of the recipe at a time."""
