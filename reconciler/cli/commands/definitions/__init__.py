"""Every command's name, options, examples and exit codes, and the module of its handler. Data only.

``table`` lists all commands. Help, shell completion and ``docs/reference/commands.md`` follow from them.
"""
