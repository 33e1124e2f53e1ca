"""What would keep git from working on the box is never taken: names of refs, attributes."""

from __future__ import annotations

import pytest

from tests.support.harness.daemon import RequestRefused
from tests.support.hosts.git_host import GitHost, GitUser, refused, until, write

NAMES = {
    "refs/replace/{head}": "is neither a branch nor a tag",
    "refs/notes/commits": "is neither a branch nor a tag",
    "refs/service-manager/fetched": "is neither a branch nor a tag",
    "refs/heads/--upload-pack=x": "git takes it for an option",
    "refs/heads/HEAD": "git takes it for something else",
    "refs/tags/main": "the deployed branch has the same name",
    "refs/heads/a\u2028b": "it has unprintable characters",
}


@pytest.mark.parametrize("made_before", [False, True])
def test_names_that_would_keep_git_from_working_are_refused(
    ready: GitHost, ann: GitUser, made_before: bool
) -> None:
    if made_before:
        # A repository of an earlier version hides nothing; its hook calls the same command.
        ready.me.git("config", "--unset-all", "receive.hideRefs")
        ready.me.git("config", "--unset-all", "core.useReplaceRefs")
    for name, why in NAMES.items():
        ref = name.format(head=ann.git("rev-parse", "HEAD"))
        said = refused(ready, ann, "origin", f"HEAD:{ref}")
        hidden = not made_before and not ref.startswith(("refs/heads/", "refs/tags/"))
        assert ("hidden ref" if hidden else why) in said
    ready.daemon.post("/services/start/extra")
    until(lambda: ready.log()[0][1] == "Start extra")
    ann.git("pull", "-q", "--rebase")
    ann.save("web", {"groups.yaml": ready.groups().replace("web: off", "web: on")})
    assert ann.push("origin", "HEAD", "HEAD:refs/heads/idea", "HEAD:refs/tags/v1").returncode == 0
    assert "✓ git" in ready.cli("doctor", "--desired-state", str(ready.desired)).said


def test_what_was_pushed_before_is_named_with_its_remedy(ready: GitHost, ann: GitUser) -> None:
    head = ready.head()
    ready.me.git("config", "--unset", "core.useReplaceRefs")
    (ready.desired / ".git/refs/replace").mkdir()
    (ready.desired / f".git/refs/replace/{head}").write_text(head + "\n")
    (ready.desired / ".git/refs/heads/HEAD").write_text(head + "\n")
    # Writes are committed all the same.
    ready.daemon.post("/services/start/extra")
    until(lambda: ready.cli("git", "log", str(ready.desired)).said.count("Start extra") == 1)
    said = ready.cli("doctor", "--desired-state", str(ready.desired)).said
    assert f"refs/replace/{head}" in said
    assert "HEAD is no name for a branch" in said
    ann.git("fetch", "-q")
    ann.git("reset", "-q", "--hard", "origin/main")
    ann.save("web", {"README.md": "x\n"})
    assert f"replace -d {head}" in ann.push().said
    for remedy in (f"replace -d {head}", "update-ref -d refs/heads/HEAD"):
        assert f"git -C {ready.desired} {remedy}" in said
        ready.me.git(*remedy.split())
    assert ann.push().returncode == 0
    assert "✓ git" in ready.cli("doctor", "--desired-state", str(ready.desired)).said


def test_attributes_that_keep_git_from_working_are_refused(ready: GitHost, ann: GitUser) -> None:
    write(
        ann.directory, {".gitattributes": "# UTF-16\n*.md text\ngroups.yaml working-tree-encoding=UTF-16LE\n"}
    )
    ann.git("add", ".gitattributes")
    ann.git("commit", "-qm", "encoding")
    said = refused(ready, ann)
    assert ".gitattributes:3:13: working-tree-encoding=UTF-16LE is not allowed" in said
    ann.git("reset", "-q", "--hard", "origin/main")
    # What a checkout converts counts as edited from then on.
    write(ann.directory, {"config/db.conf": "one\r\n", ".gitattributes": "*.conf -text\n"})
    ann.save("line ends", {})
    assert ann.push().returncode == 0
    write(ann.directory, {".gitattributes": "*.conf text\n"})
    ann.git("commit", "-qm", "text", ".gitattributes")
    assert "config/db.conf: counts as changed right after a checkout" in refused(ready, ann)
    ann.git("add", "--renormalize", ".")
    ann.git("commit", "-q", "--amend", "--no-edit")
    done = ann.push()
    assert done.returncode == 0, done.said
    ready.daemon.post("/services/start/extra")
    until(lambda: ready.log()[0][1] == "Start extra")
    assert ready.clean()


def test_a_rollback_takes_no_commit_that_a_push_could_not_bring(ready: GitHost) -> None:
    write(ready.desired, {"sub/.gitattributes": "*.txt working-tree-encoding=UTF-16LE\n", "sub/a.md": "x\n"})
    bad = ready.me.save("encoding", {})
    ready.me.save("without", {"sub/.gitattributes": ""})
    with pytest.raises(RequestRefused) as caught:
        ready.daemon.post(f"/services/rollback/{bad}")
    assert caught.value.value["reason"] == "not_restorable"
    assert "sub/.gitattributes:1:7" in str(caught.value.value)
