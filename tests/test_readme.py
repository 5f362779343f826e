"""The README's Python runs as it stands, offline, where only what `pip install .` installs can be imported."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
RELEASED = "models/finmatryoshka-minilm"
BLOCKS = re.findall(r"```python\n(.*?)```\n(?:\n((?: {4}[^\n]*\n)+))?", README, re.DOTALL)
# What a machine without a network does to whoever asks for one.
NO_NETWORK = """
import socket
def refuse(*_): raise OSError("asked for the network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def installed(requirements: list[str]) -> set[importlib.metadata.Distribution]:
    """The distributions that ``requirements`` install, without extras."""
    found: dict[str, importlib.metadata.Distribution] = {}
    left = [Requirement(line) for line in requirements]
    while left:
        wanted = left.pop()
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if name not in found and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
            found[name] = importlib.metadata.distribution(name)
            left += map(Requirement, found[name].requires or [])
    return set(found.values())


@pytest.fixture(scope="module")
def plain_environment(tmp_path_factory) -> dict[str, str]:
    """Variables of a process that can import the project and what it requires, and no extra's package."""
    place = tmp_path_factory.mktemp("site")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for distribution in installed(project["dependencies"]):
        for name in {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (place / name).exists():
                (place / name).symlink_to(distribution.locate_file(name))
    (place / "finmatryoshka").symlink_to(ROOT)
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    return variables | {"PYTHONPATH": str(place), "HF_HOME": str(tmp_path_factory.mktemp("home"))}


def run(code: str, variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    """``code`` in the repository's root, in a process that sees no site-packages of its own."""
    command = [sys.executable, "-S", "-c", NO_NETWORK + code, *arguments]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)


def test_the_blocks_run_as_they_stand_and_print_what_the_readme_says(plain_environment):
    assert [RELEASED in block for block, _ in BLOCKS] == [True, True]
    for package in ("datasets", "accelerate", "optuna", "matplotlib", "bm25s", "evaluate", "lancedb", "ray", "pandas"):
        assert not (Path(plain_environment["PYTHONPATH"]) / package).exists(), package
    done = run("".join(block for block, _ in BLOCKS), plain_environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == re.sub(r"(?m)^ {4}", "", "".join(printed for _, printed in BLOCKS))


def test_the_released_folder_is_checked_where_nothing_else_is_installed(plain_environment):
    code = (
        "import sys\nfrom finmatryoshka.sentence_transformers_config.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    )
    done = run(code, plain_environment, "check", RELEASED)
    assert (done.returncode, done.stdout) == (0, f"{RELEASED}: fit to publish\n"), done.stderr[-2000:]
