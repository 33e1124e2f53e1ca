"""The Python that `make` uses, on machines whose python3 is too old."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
OLD = '#!/bin/sh\n[ "$1" != --version ] || { echo Python 3.10.12; exit; }\nexit 1\n'
UV = """\
#!/bin/sh
echo "$*" >>"{calls}"
{rest}
"""
SCRIPT = "reconciler/quickstart/find-python"
FOLDER = '"$UV_PYTHON_INSTALL_DIR/cpython-3.12.9/bin"'
INSTALLS = f"mkdir -p {FOLDER} && ln -s {{}} {FOLDER}/python3"


class Checkout:
    """The script in a folder of its own, with only the given programs on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        (folder / SCRIPT).parent.mkdir(parents=True)
        (folder / "bin").mkdir()
        shutil.copy2(ROOT / SCRIPT, folder / SCRIPT)
        shutil.copy2(ROOT / "requirements-uv.lock", folder)
        self.program("apt-get", "#!/bin/sh\nexit 1\n")

    def program(self, name: str, text: str) -> Path:
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def uv(self, rest: str) -> None:
        self.program("uv", UV.format(calls=self.calls, rest=rest))

    def find(self, *words: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [str(self.folder / SCRIPT), *words],
            env={"PATH": f"{self.folder}/bin:/usr/bin:/bin", "HOME": str(self.folder), "PIP_NO_INDEX": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout.strip(), done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_first_new_enough_python_is_used(checkout: Checkout) -> None:
    old = checkout.program("python3", OLD)
    assert checkout.find(str(old), "nothing-of-this-name", sys.executable) == (0, sys.executable, "")


def test_uv_fetches_one_where_python3_is_3_10(checkout: Checkout) -> None:
    checkout.program("python3", OLD)
    checkout.uv(INSTALLS.format(shlex.quote(sys.executable)))
    expected = str(checkout.folder / ".cache/python/cpython-3.12.9/bin/python3")
    code, found, output = checkout.find("python3", "python3.11-none")
    assert (code, found) == (0, expected)
    assert "python3 is Python 3.10.12" in output
    assert "Fetching Python 3.12" in output
    assert checkout.calls.read_text() == "python install 3.12\n"
    # The next call finds it.
    assert checkout.find("python3")[:2] == (0, expected)
    assert checkout.find("--managed") == (0, expected, "")
    assert checkout.calls.read_text() == "python install 3.12\n"


@pytest.mark.parametrize("uv", ["exit 2", ""])
def test_without_a_python_to_fetch_it_says_what_to_do(checkout: Checkout, uv: str) -> None:
    checkout.program("python3", OLD)
    if uv:
        checkout.uv(uv)
    code, found, output = checkout.find("python3")
    assert (code, found) == (1, "")
    assert "python3 is Python 3.10.12" in output
    assert "make deb BUNDLE=1" in output
    assert os.uname().machine in output
    assert "make PYTHON=" in output
    assert uv or "uv, which can fetch a Python, could not be installed" in output
