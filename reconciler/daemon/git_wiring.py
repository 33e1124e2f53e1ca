"""The daemon's part about git, put together: the work tree, pull mode, its webhook."""

from __future__ import annotations

import os
import time

from api.endpoints.webhook import Webhook
from reconciler.desired_state.digest_key_file import keyed, read_key
from reconciler.engine.compose.discovery import environment
from reconciler.engine.compose.engine import resolve
from reconciler.generations.acceptance import Acceptor
from reconciler.generations.store import Generations
from reconciler.git.pull import PullConfig, Puller
from reconciler.git.staging import ValidationContext
from reconciler.git.work_tree import GitTree
from reconciler.options import RunOptions

_SHORTEST_SECRET = 16


def work_tree(options: RunOptions, generations: Generations) -> GitTree:
    """The desired-state directory as a work tree, whether it is one or not."""
    around = ValidationContext(
        keyed(resolve, read_key(options.state_dir)),
        options.compose_file,
        environment(os.environ),
        options.git_path,
    )
    return GitTree(options.desired_state, generations, around, auto=options.git_commit_edits)


def puller(options: RunOptions, tree: GitTree, intake: Acceptor) -> Puller | None:
    """Pull mode, None where it is not asked for. What is committed is looked at by whoever has to."""
    tree.committed = intake.reload
    if not options.git_url:
        return None
    source = PullConfig(
        options.git_url,
        options.git_branch,
        options.git_interval,
        options.git_verify,
        options.git_writes,
        options.git_rewritten,
    )
    found = Puller(tree, source, intake.reload)
    tree.committed = found.committed
    return found


def webhook(options: RunOptions, pulls: Puller | None) -> Webhook | None:
    """The endpoint that has the repository fetched, None without pull mode or a secret.

    Raises:
        OSError: the secret can't be read, or is none worth the name.
    """
    if pulls is None or options.git_webhook_secret is None:
        return None
    secret = options.git_webhook_secret.read_bytes().strip()
    if len(secret) < _SHORTEST_SECRET:
        raise OSError(f"{options.git_webhook_secret}: at least {_SHORTEST_SECRET} characters are needed")
    return Webhook(secret, pulls.request_pull, time.time)
