"""Sorts nodes so that dependencies come first, and finds cycles. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter


def sorted_by_dependency(edges: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Sort the nodes of ``edges`` (node to its dependencies), dependencies first; deterministic.

    Dependents follow soon after their dependency, not level by level: related nodes are close in memory,
    which makes ``plan``, which visits them in this order, faster with thousands of services.

    Raises:
        graphlib.CycleError: with the members of one cycle as its second argument.
    """
    sorter = TopologicalSorter({node: sorted(edges[node]) for node in sorted(edges)})
    sorter.prepare()
    ordered: list[str] = []
    ready = [*reversed(sorter.get_ready())]
    while ready:
        node = ready.pop()
        ordered.append(node)
        sorter.done(node)
        ready += reversed(sorter.get_ready())
    return tuple(ordered)


def find_cycle(edges: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Return one dependency cycle, each node followed by its dependency, first and last equal; () if none."""
    try:
        sorted_by_dependency(edges)
    except CycleError as error:
        return tuple(reversed(error.args[1]))
    return ()
