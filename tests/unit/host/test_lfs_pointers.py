"""Git LFS pointers where a container expects the file itself."""

from __future__ import annotations

from pathlib import Path

from reconciler.desired_state.mounted_files import MountedFiles
from reconciler.host.lfs_pointers import is_pointer, pointer_warnings
from reconciler.model.stack import Mount
from tests.support.fixtures.builders import a_stack, service

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 48213004\n"


def test_what_counts_as_a_pointer() -> None:
    assert is_pointer(POINTER)
    assert not is_pointer(b"")
    assert not is_pointer(b"version https://git-lfs.github.com/spec/v1 is described here\n")
    assert not is_pointer(POINTER + b"#" * 2000)


def test_mounted_pointers_are_named_also_inside_folders(tmp_path: Path) -> None:
    (tmp_path / "models/deep").mkdir(parents=True)
    (tmp_path / "models/deep/plates.onnx").write_bytes(POINTER)
    (tmp_path / "models/real.onnx").write_bytes(b"\x00" * 4000)
    (tmp_path / "cert.pem").write_bytes(POINTER)
    mounts = tuple(
        Mount("bind", f"/{n}", str(tmp_path / n))
        for n in ("models", "cert.pem", "missing", "models/real.onnx")
    )
    folder, file = pointer_warnings([service("ocr", mounts=mounts)])
    assert folder.startswith(f"ocr: {tmp_path}/models/deep/plates.onnx is a Git LFS pointer")
    assert file.startswith(f"ocr: {tmp_path}/cert.pem is a Git LFS pointer")


def test_a_staged_copy_comes_before_the_real_file(tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    (staged / "srv").mkdir(parents=True)
    (staged / "srv/plates.onnx").write_bytes(POINTER)
    (warning,) = pointer_warnings(
        [service("ocr", mounts=(Mount("bind", "/m", "/srv/plates.onnx"),))], str(staged)
    )
    assert warning.startswith("ocr: /srv/plates.onnx is a Git LFS pointer")


def test_status_notes_a_pointer_until_the_file_is_there(tmp_path: Path) -> None:
    model = tmp_path / "plates.onnx"
    model.write_bytes(POINTER)
    stack = a_stack({"core": [service("ocr", mounts=(Mount("bind", "/m", str(model)),))]})
    later = 1e12  # Every change is settled at once.
    mounted = MountedFiles(now=lambda: later, wall=lambda: later)
    assert "is a Git LFS pointer" in mounted.observe(stack).notes[0]
    model.unlink()
    assert mounted.observe(stack).notes == ()
