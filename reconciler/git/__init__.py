"""Desired state in a git work tree: status, commits, push, pull, signatures. Runs the ``git`` program.

``command`` runs git, ``inspect`` reads a work tree, ``lock`` serialises its changes. ``work_tree`` is the
daemon's view: origins of states, and commits of writes (``auto_commit``, ``commit_objects``). ``setup`` and
``staging`` serve pushes, together with the hook in ``cli.git_receive``. ``pull`` is pull mode: it fetches,
distinguishes own commits from upstream's (``upstream``), rebases them (``replay``) and moves the work tree
(``checkout``).

May import ``generations``, ``desired_state``, ``model``, ``host``; knows no engine adapter but Compose's
resolver.
"""
