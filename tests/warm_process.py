"""A script in a process of its own that has the libraries already: a fork of one that imported them and nothing else.

Dozens of tests look at a folder from outside the project, and importing torch and transformers takes each some seconds.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "transformers.dynamic_module_utils", "sentence_transformers"])


def run_script(command: list[str], cwd, env: dict[str, str], **_) -> subprocess.CompletedProcess:
    """What ``subprocess.run`` gives of ``[sys.executable, "-I", script, *arguments]``, its output as text."""
    assert command[:2] == [sys.executable, "-I"]
    with tempfile.TemporaryDirectory() as place:
        outputs = [Path(place, name) for name in ("stdout", "stderr")]
        process = CONTEXT.Process(target=_script, args=(command[2:], str(cwd), dict(env), outputs))
        process.start()
        process.join()
        return subprocess.CompletedProcess(command, process.exitcode, *(path.read_text() for path in outputs))


def _script(arguments: list[str], cwd: str, env: dict[str, str], outputs: list[Path]):
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    # as `-I` leaves it: neither this repository nor PYTHONPATH
    sys.path[:] = [path for path in sys.path if Path(path).is_relative_to(sys.base_prefix) or "site-packages" in path]
    # transformers read the environment when it was imported
    sys.modules["transformers.dynamic_module_utils"].HF_MODULES_CACHE = env["HF_MODULES_CACHE"]
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
