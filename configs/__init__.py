"""Configuration files and the schema they are checked against."""
