"""OUTPUT.run, what a run keeps beside its output until that is whole: a lock, finished stages, the trainer's
checkpoints.

Training itself is `sentence_transformers.SentenceTransformerTrainer` as it stands: the numeric heads are the model's,
so every checkpoint holds them, a resumed run goes on with them and ``load_best_model_at_end`` brings them back.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .arguments import ArgumentError

LOCK = ".lock"
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


class StorageError(RuntimeError):
    """A disk that takes no more; the message says what was kept, and where."""


class RunFolder:
    """OUTPUT.run of a run of so many stages.

    Of one stage it holds the checkpoints; of several, ``stage-1``, ``stage-2``, ... as they are finished, and each
    one's checkpoints in ``stage-1.checkpoints``, ...
    """

    def __init__(self, output: str, stages: int):
        self.output, self.stages, self.path = output, stages, Path(f"{output}.run")

    def finished(self, number: int) -> Path:
        """Where stage ``number`` (from 1) leaves its model; the last one's is the output."""
        return Path(self.output) if number == self.stages else self.path / f"stage-{number}"

    def checkpoints(self, number: int) -> Path:
        return self.path if self.stages == 1 else self.path / f"stage-{number}.checkpoints"

    def resumable(self) -> bool:
        numbers = range(1, self.stages + 1)
        return any(last_complete_checkpoint(self.checkpoints(n)) for n in numbers) or any(
            (self.finished(n) / "training.json").is_file() for n in numbers[:-1]
        )

    def _remains(self) -> bool:
        """Whether a run, of however many stages, left work behind."""
        return any(self.path.glob("stage-*/training.json")) or any(map(last_complete_checkpoint, _trainers(self.path)))

    @contextmanager
    def held(self, resume: bool | str | None, replace: bool, keep: bool) -> Iterator[None]:
        """Hold the folder for this process; it goes when the block ends, unless a run that failed can be resumed from
        it.

        Args:
            resume: True: go on from what a dead run left there, which has to be something. A checkpoint's path: leave
                all as it is.
            replace: What a dead run left there may go.
            keep: Keep it after a run that ended well, too.

        Raises:
            ArgumentError: held by a living process, not writable, or with the remains of a dead one that neither may
                stay nor go.
        """
        lock = FileLock(self.path / LOCK)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise ArgumentError(
                f"--output_dir {self.output}: another training is writing it; wait for its end or name another folder"
            ) from None
        except OSError as error:
            raise ArgumentError(
                f"--output_dir {self.output}: cannot be written ({error.strerror}); name another folder"
            ) from None
        done = False
        try:
            self._settle(resume, replace)
            yield
            done = True
        finally:
            if not (keep and done or not done and self._remains()):
                shutil.rmtree(self.path, ignore_errors=True)
            lock.release()

    def _settle(self, resume: bool | str | None, replace: bool) -> None:
        """Keep or sweep what is there from before."""
        if resume is True and not self.resumable():
            raise ArgumentError(f"--resume_from_checkpoint: {self.path} holds no complete checkpoint; start without it")
        if not resume and not replace and self._remains():
            raise ArgumentError(
                f"{self.path}: is what a run that was cut off left; pass --resume_from_checkpoint true to go on with "
                "it, or --overwrite true to start anew"
            )
        for path in self.path.iterdir():
            if path.name != LOCK and not resume:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        sweep_incomplete(self.path)


def _trainers(run_dir: str | os.PathLike) -> Iterator[Path]:
    """Where trainers leave checkpoints: in the folder of a run of one stage, else in one for each stage."""
    yield Path(run_dir)
    yield from Path(run_dir).glob("*.checkpoints")


def _numbered(run_dir: Path) -> Iterator[tuple[int, Path]]:
    for path in run_dir.glob("checkpoint-*"):
        if match := re.fullmatch(r"checkpoint-(\d+)", path.name):
            yield int(match[1]), path


def last_complete_checkpoint(run_dir: str | os.PathLike) -> str | None:
    """The newest checkpoint of ``run_dir`` that was written to its end, or None."""
    found = [item for item in _numbered(Path(run_dir)) if is_complete(item[1])]
    return str(max(found)[1]) if found else None


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: ``trainer_state.json`` is the last file that the trainer writes."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return True


def sweep_incomplete(run_dir: str | os.PathLike) -> None:
    """Remove the checkpoints of ``run_dir`` and of the folders in it that were cut off in mid-save."""
    for folder in _trainers(run_dir):
        for _, path in _numbered(folder):
            if not is_complete(path):
                shutil.rmtree(path, ignore_errors=True)


def storage_refusal(error: BaseException | None) -> str | None:
    """The system's reason where a disk refused to be written, through whichever library; None for any other error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            return os.strerror(error.errno)
        said = re.search(r"os error (\d+)", str(error))  # safetensors speaks for the system
        if said and int(said[1]) in _REFUSALS:
            return os.strerror(int(said[1]))
        if "PytorchStreamWriter" in str(error) or "inline_container" in str(error):  # torch.save does not say why
            return "it is full or not writable"
        error = error.__cause__ or error.__context__
    return None
