"""What every package shares: errors, files, seeds, configuration, constants, figures."""
