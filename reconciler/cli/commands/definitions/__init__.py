"""Every command's name, options, examples and exit codes. Data only."""
