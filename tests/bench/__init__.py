"""How fast: figures against Docker Compose, an ideal scheduler and the issue's limits. ``make bench``.

Not part of ``make test`` and without assertions: a busy or different machine must be able to print its table.
What is compared is measured in turn (A B A B ...), in the same run on the same private engine, because
machines drift.
"""
