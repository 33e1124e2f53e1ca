"""The classes that commands are described with, on top of click.

``command`` has the program and its commands, ``parameters`` options and arguments, ``option_types`` the
conversion of their values, ``common_options`` the options that several commands share.
"""
