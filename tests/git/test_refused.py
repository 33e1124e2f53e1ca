"""Refs and attributes that would break git on the host are refused."""

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
def test_ref_names_that_break_git_are_refused(push_host: GitHost, ann: GitUser, made_before: bool) -> None:
    if made_before:
        # A repository set up by an earlier version hides no refs; its hook calls the same command.
        push_host.me.git("config", "--unset-all", "receive.hideRefs")
        push_host.me.git("config", "--unset-all", "core.useReplaceRefs")
    for name, why in NAMES.items():
        ref = name.format(head=ann.git("rev-parse", "HEAD"))
        output = refused(push_host, ann, "origin", f"HEAD:{ref}")
        hidden = not made_before and not ref.startswith(("refs/heads/", "refs/tags/"))
        assert ("hidden ref" if hidden else why) in output
    push_host.daemon.post("/services/start/extra")
    until(lambda: push_host.log()[0][1] == "Start extra")
    ann.git("pull", "-q", "--rebase")
    ann.save("web", {"groups.yaml": push_host.groups().replace("web: off", "web: on")})
    assert ann.push("origin", "HEAD", "HEAD:refs/heads/idea", "HEAD:refs/tags/v1").returncode == 0
    assert "✓ git" in push_host.cli("doctor", "--desired-state", str(push_host.desired)).output


def test_refs_from_earlier_pushes_are_reported_with_a_remedy(push_host: GitHost, ann: GitUser) -> None:
    head = push_host.head()
    push_host.me.git("config", "--unset", "core.useReplaceRefs")
    (push_host.desired / ".git/refs/replace").mkdir()
    (push_host.desired / f".git/refs/replace/{head}").write_text(head + "\n")
    (push_host.desired / ".git/refs/heads/HEAD").write_text(head + "\n")
    # Writes are still committed.
    push_host.daemon.post("/services/start/extra")
    until(lambda: push_host.cli("git", "log", str(push_host.desired)).output.count("Start extra") == 1)
    output = push_host.cli("doctor", "--desired-state", str(push_host.desired)).output
    assert f"refs/replace/{head}" in output
    assert "HEAD is no name for a branch" in output
    ann.git("fetch", "-q")
    ann.git("reset", "-q", "--hard", "origin/main")
    ann.save("web", {"README.md": "x\n"})
    assert f"replace -d {head}" in ann.push().output
    for remedy in (f"replace -d {head}", "update-ref -d refs/heads/HEAD"):
        assert f"git -C {push_host.desired} {remedy}" in output
        push_host.me.git(*remedy.split())
    assert ann.push().returncode == 0
    assert "✓ git" in push_host.cli("doctor", "--desired-state", str(push_host.desired)).output


def test_attributes_that_break_git_are_refused(push_host: GitHost, ann: GitUser) -> None:
    write(
        ann.directory, {".gitattributes": "# UTF-16\n*.md text\ngroups.yaml working-tree-encoding=UTF-16LE\n"}
    )
    ann.git("add", ".gitattributes")
    ann.git("commit", "-qm", "encoding")
    output = refused(push_host, ann)
    assert ".gitattributes:3:13: working-tree-encoding=UTF-16LE is not allowed" in output
    ann.git("reset", "-q", "--hard", "origin/main")
    # A file that the checkout converts would count as edited from then on.
    write(ann.directory, {"config/db.conf": "one\r\n", ".gitattributes": "*.conf -text\n"})
    ann.save("line ends", {})
    assert ann.push().returncode == 0
    write(ann.directory, {".gitattributes": "*.conf text\n"})
    ann.git("commit", "-qm", "text", ".gitattributes")
    assert "config/db.conf: counts as changed right after a checkout" in refused(push_host, ann)
    ann.git("add", "--renormalize", ".")
    ann.git("commit", "-q", "--amend", "--no-edit")
    done = ann.push()
    assert done.returncode == 0, done.output
    push_host.daemon.post("/services/start/extra")
    until(lambda: push_host.log()[0][1] == "Start extra")
    assert push_host.clean()


def test_a_rollback_to_a_commit_that_a_push_could_not_bring_is_refused(push_host: GitHost) -> None:
    write(
        push_host.desired, {"sub/.gitattributes": "*.txt working-tree-encoding=UTF-16LE\n", "sub/a.md": "x\n"}
    )
    bad = push_host.me.save("encoding", {})
    push_host.me.save("without", {"sub/.gitattributes": ""})
    with pytest.raises(RequestRefused) as caught:
        push_host.daemon.post(f"/services/rollback/{bad}")
    assert caught.value.value["reason"] == "not_restorable"
    assert "sub/.gitattributes:1:7" in str(caught.value.value)
