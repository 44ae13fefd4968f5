"""What every room shares: errors, files, seeds, configuration, constants, figures."""
