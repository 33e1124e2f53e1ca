"""Builds the daemon's git components: the work tree, pull mode, its webhook."""

from __future__ import annotations

import time

from api.endpoints.webhook import Webhook
from reconciler.desired_state.digest_key_file import keyed, read_key
from reconciler.engine import ComposeResolver
from reconciler.generations.desired_state_files import DesiredStateFiles
from reconciler.generations.store import Generations
from reconciler.git.pull import PullConfig, Puller
from reconciler.git.staging import ValidationContext
from reconciler.git.work_tree import GitTree
from reconciler.options import RunOptions

_SHORTEST_SECRET = 16


def work_tree(options: RunOptions, generations: Generations, resolve: ComposeResolver) -> GitTree:
    """Wrap the desired-state directory; it need not be a git work tree."""
    around = ValidationContext(
        keyed(resolve, read_key(options.state_dir)),
        options.compose_file,
        resolve.environment,
        options.git_path,
    )
    return GitTree(options.desired_state, generations, around, auto=options.git_commit_edits)


def puller(options: RunOptions, tree: GitTree, files: DesiredStateFiles) -> Puller | None:
    """Return the puller, or None without ``--git-url``. Also sets the callback for commits made here."""
    tree.committed = files.reload
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
    pulls = Puller(tree, source, files.reload)
    tree.committed = pulls.committed
    return pulls


def webhook(options: RunOptions, pulls: Puller | None) -> Webhook | None:
    """Build the endpoint that triggers a fetch, or None without pull mode or a secret.

    Raises:
        OSError: the secret can't be read or is too short.
    """
    if pulls is None or options.git_webhook_secret is None:
        return None
    secret = options.git_webhook_secret.read_bytes().strip()
    if len(secret) < _SHORTEST_SECRET:
        raise OSError(f"{options.git_webhook_secret}: at least {_SHORTEST_SECRET} characters are needed")
    return Webhook(secret, pulls.request_pull, time.time)
