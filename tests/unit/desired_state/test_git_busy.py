from __future__ import annotations

from pathlib import Path

from reconciler.desired_state.git_busy import GitActivity


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_directory_without_git_is_never_busy(tmp_path: Path) -> None:
    assert GitActivity(tmp_path).current_operation() is None
    assert GitActivity(tmp_path / "gone").current_operation() is None


def test_git_operation_is_waited_for_up_to_the_limit(tmp_path: Path) -> None:
    clock, inside = Clock(), tmp_path / "a/b"
    inside.mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    hold = GitActivity(inside, limit=5.0, now=clock)
    assert hold.current_operation() is None
    lock = tmp_path / ".git/index.lock"
    lock.touch()
    assert hold.current_operation() == lock
    clock.now = 6.0
    assert hold.current_operation() is None
    (warning,) = hold.stale_signs()
    assert str(lock) in warning
    lock.unlink()
    assert hold.current_operation() is None
    assert hold.stale_signs() == ()
    (tmp_path / ".git/rebase-merge").mkdir()
    assert hold.current_operation() == tmp_path / ".git/rebase-merge"


def test_linked_work_tree_has_its_own_lock(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/.git").write_text("gitdir: ../repo\n")
    hold = GitActivity(tmp_path / "tree")
    assert hold.current_operation() is None
    (tmp_path / "repo/index.lock").touch()
    assert hold.current_operation() is not None
