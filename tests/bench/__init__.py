"""How fast: figures against Docker Compose, an ideal scheduler and the issue's limits. ``make bench``.

Never part of ``make test``, and nothing here asserts: a machine that is busy, or other than the one that
the limits were measured on, must be able to print its table. What is compared is measured in turn (A B
A B ...), in the same run on the same private engine, because machines drift.
"""
