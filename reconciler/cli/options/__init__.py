"""What a command takes: its description, options and their types, the parser and the help texts."""
