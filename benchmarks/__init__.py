"""Side-by-side timings against a plain implementation and against the machine's own limits."""
