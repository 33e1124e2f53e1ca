"""Command descriptions, options and their types, the parser and the help texts."""
