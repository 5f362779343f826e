"""Faults while writing: a full disk, a read-only place, a kill, two writers; the old folder survives and one line says
so."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from finmatryoshka.data import files
from finmatryoshka.data.files import WriteError, check_writable, replace_file, written_whole
from finmatryoshka.sentence_transformers_config import __main__ as cli

from conftest import files_of_at_most


@pytest.fixture
def target(tmp_path) -> Path:
    with written_whole(tmp_path / "m") as folder:
        (folder / "a").write_text("old")
    return tmp_path / "m"


def _names(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def _run(code: str, *arguments) -> subprocess.CompletedProcess:
    """A process of its own that has data/files.py as ``files``, by its path: the package would bring torch."""
    start = (
        "import importlib.util, os, signal, sys\n"
        f"spec = importlib.util.spec_from_file_location('files', {files.__file__!r})\n"
        "files = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(files)\n"
    )
    return subprocess.run([sys.executable, "-c", start + code, *map(str, arguments)], capture_output=True, text=True)


def test_a_full_disk_is_one_line_and_the_old_folder_stays(target):
    for error in (OSError(errno.ENOSPC, "No space left on device"), RuntimeError("I/O error: No space (os error 28)")):
        with pytest.raises(
            WriteError, match="m: cannot be written .No space left on device.; nothing there was changed"
        ):
            with written_whole(target) as folder:
                (folder / "a").write_text("new")
                raise error
    assert (target / "a").read_text() == "old" and _names(target) == ["m"]


def test_weights_that_do_not_fit_leave_the_old_folder(trained_folders, tmp_path, capsys):
    """A limit of the size of a file, which safetensors meets as it meets a full disk: in Rust."""
    with files_of_at_most(50_000):
        assert cli.main(["round", trained_folders["bert"], "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ") and "cannot be written" in error
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_does_not_fit_stays_as_it_was(tmp_path, monkeypatch):
    replace_file(tmp_path / "r.json", "old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(WriteError, match="r.json: cannot be written"):
        replace_file(tmp_path / "r.json", "new")
    assert (tmp_path / "r.json").read_text() == "old" and os.listdir(tmp_path) == ["r.json"]


def test_a_read_only_place_is_said_before_the_work(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    check_writable(tmp_path / "m")
    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(WriteError, match="Read-only file system"):
        check_writable(tmp_path / "m")


def test_a_bug_while_writing_keeps_its_traceback(target):
    with pytest.raises(ZeroDivisionError):
        with written_whole(target):
            raise ZeroDivisionError
    with pytest.raises(FileNotFoundError):
        with written_whole(target):
            open(target / "none")


@pytest.mark.parametrize("step", ["before", "between", "after"])
def test_killed_in_the_move_a_whole_folder_stays_and_remains_are_swept(target, step):
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    code = {
        "before": f"files._exchange = lambda *_: {kill}\n",
        # where the system cannot exchange: the old one is moved away, the new one not yet there
        "between": "files._exchange = lambda *_: False\nreplace, files.os.replace = os.replace, None\n"
        f"files.os.replace = lambda a, b: replace(a, b) if str(b).endswith('.old') else {kill}\n",
        "after": f"exchange, files._exchange = files._exchange, None\n"
        f"files._exchange = lambda *p: exchange(*p) and {kill}\n",
    }[step] + "with files.written_whole(sys.argv[1]) as folder: (folder / 'a').write_text('new')\n"
    assert _run(code, target).returncode == -signal.SIGKILL
    assert _names(target) != ["m"]
    if step != "between":
        assert (target / "a").read_text() == {"before": "old", "after": "new"}[step]
    check_writable(target)
    assert (target / "a").read_text() == {"before": "old", "between": "old", "after": "new"}[step]
    assert _names(target) == ["m"]


def test_what_a_living_process_writes_is_left_alone(target):
    mine = target.with_name(f".m.{os.getppid()}.partial")
    mine.mkdir()
    check_writable(target)
    assert mine.is_dir()


def test_a_command_on_what_is_no_folder_of_ours_is_one_line(tmp_path, capsys):
    assert cli.main(["round", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/config.json: missing; give a folder that train_st.py wrote\n"
