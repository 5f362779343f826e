"""What a full disk, a second training and the remains of a dead one do to a run: one line each, and nothing learned is
lost."""

import errno
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer

from finmatryoshka import train_st
from finmatryoshka.training import record, run
from finmatryoshka.training.checkpoints import RunFolder, storage_refusal

from conftest import files_of_at_most

FULL = OSError(errno.ENOSPC, "No space left on device")


def error_of(capsys) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_two_trainings_do_not_write_one_output(train_flags, tmp_path, capsys):
    flags = train_flags(output_dir=tmp_path / "m", skip_evaluation=True, max_steps=1, overwrite=True)
    with RunFolder(str(tmp_path / "m"), 1).held(resume=False, replace=False, keep=False):
        assert train_st.main(flags) == 2
        assert "another training is writing it" in error_of(capsys)
        assert not (tmp_path / "m").exists()
    assert train_st.main(flags) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_remains_of_a_dead_run_that_nothing_can_go_on_from_are_swept(train_flags, tmp_path):
    half = tmp_path / "m.run" / "checkpoint-4"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    (tmp_path / "m.run" / ".lock").touch()
    assert train_st.main(train_flags(output_dir=tmp_path / "m", skip_evaluation=True, max_steps=1)) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_checkpoint_of_a_dead_run_goes_only_when_told(train_flags, tmp_path, capsys):
    whole = tmp_path / "m.run" / "checkpoint-4"
    whole.mkdir(parents=True)
    (whole / "trainer_state.json").write_text("{}")
    flags = train_flags(output_dir=tmp_path / "m", skip_evaluation=True, max_steps=1)
    assert train_st.main(flags) == 2
    assert "m.run: is what a run that was cut off left" in error_of(capsys) and whole.exists()
    assert train_st.main([*flags, "--overwrite", "true"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_what_was_trained_on_is_known_of_a_repository_too(tmp_path, monkeypatch):
    """The record lies beside the weights on the Hub; where none does, or no Hub is near, nothing is known."""
    (tmp_path / "training.json").write_text('{"trained_on": {"a.json": "1"}}')
    monkeypatch.setattr(record, "hf_hub_download", lambda repo, file: {"org/ours": tmp_path}[repo] / file)
    assert record.record_of("org/ours") == {"trained_on": {"a.json": "1"}}
    assert record.read_record("org/ours") is None  # no folder here; a run's own place is never asked of the Hub
    monkeypatch.undo()
    assert record.record_of("org/nobodys") is None  # offline
    for name in ("minilm", str(tmp_path / "none")):
        assert record.record_of(name) is None


@pytest.mark.parametrize("file", ["stage-1/training.json", "stage-2.checkpoints/checkpoint-4/trainer_state.json"])
def test_what_a_run_of_more_stages_left_goes_only_when_told(file, train_flags, tmp_path, capsys):
    left = tmp_path / "m.run" / file
    left.parent.mkdir(parents=True)
    left.write_text("{}")
    flags = train_flags(output_dir=tmp_path / "m", skip_evaluation=True, max_steps=1)
    assert train_st.main(flags) == 2
    assert "m.run: is what a run that was cut off left" in error_of(capsys) and left.exists()
    assert train_st.main([*flags, "--resume_from_checkpoint", "true"]) == 2
    assert "holds no complete checkpoint" in error_of(capsys) and left.exists()


def test_a_disk_that_is_full_after_the_training_costs_nothing_that_was_learned(
    train_flags, tmp_path, capsys, monkeypatch
):
    real = run.write_folder
    (tmp_path / "elsewhere").mkdir()

    def write_folder(model, path, extra=None):
        if Path(path).parent.name == "full":
            raise FULL
        real(model, path, extra)

    monkeypatch.setattr(run, "write_folder", write_folder)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    assert train_st.main(train_flags(output_dir=tmp_path / "full" / "m")) == 2
    error = error_of(capsys)
    assert "full/m: cannot be written (No space left on device); what was trained is in " in error
    (kept,) = (tmp_path / "elsewhere").glob("*/m")
    assert str(kept) in error and not list((tmp_path / "full").iterdir())
    assert SentenceTransformer(str(kept)).encode("net sales").shape == (32,)


def test_a_disk_that_is_full_everywhere_is_one_line_and_checkpoints_stay(train_flags, tmp_path, capsys, monkeypatch):
    def write_folder(*_):
        raise FULL

    flags = {"save_strategy": "steps", "save_steps": 2, "max_steps": 3, "skip_evaluation": True}
    with monkeypatch.context() as patch:
        patch.setattr(run, "write_folder", write_folder)
        assert train_st.main(train_flags(output_dir=tmp_path / "m", **flags)) == 2
    assert "neither does the temporary folder take it" in error_of(capsys)
    resumed = train_flags(output_dir=tmp_path / "m", resume_from_checkpoint=True, **flags)
    assert train_st.main(resumed) == 0 and [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_disk_that_is_full_for_a_checkpoint_leaves_the_earlier_ones(train_flags, tmp_path, capsys, monkeypatch):
    flags = {"save_strategy": "steps", "save_steps": 2, "max_steps": 6, "skip_evaluation": True}
    assert train_st.main(train_flags(output_dir=tmp_path / "whole", **flags)) == 0
    real = SentenceTransformerTrainer._save_optimizer_and_scheduler

    def saves_once(self, folder):
        if self.state.global_step > 2:
            raise FULL
        real(self, folder)

    with monkeypatch.context() as patch:
        patch.setattr(SentenceTransformerTrainer, "_save_optimizer_and_scheduler", saves_once)
        assert train_st.main(train_flags(output_dir=tmp_path / "cut", **flags)) == 2
    assert "cut.run: takes no checkpoint at step 4 (No space left on device)" in error_of(capsys)
    assert {path.name for path in (tmp_path / "cut.run").glob("checkpoint-*")} == {"checkpoint-2"}
    assert train_st.main(train_flags(output_dir=tmp_path / "cut", resume_from_checkpoint=True, **flags)) == 0
    for name in ("model.safetensors", "heads.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_disk_that_is_full_for_the_report_leaves_the_model(train_flags, tmp_path, capsys, monkeypatch):
    def replace_file(*_):
        raise FULL

    monkeypatch.setattr(run, "replace_file", replace_file)
    assert train_st.main(train_flags(output_dir=tmp_path / "m", max_steps=1)) == 2
    assert "does not take the report (No space left on device); the model beside it is complete" in error_of(capsys)
    assert SentenceTransformer(str(tmp_path / "m")).encode("net sales").shape == (32,)


@pytest.mark.parametrize("save", [
    lambda path: save_file({"w": torch.zeros(99_999)}, path),
    lambda path: torch.save({"w": torch.zeros(99_999)}, path),
    lambda path: Path(path).write_bytes(b"0" * 99_999),
], ids=["safetensors", "torch", "plain"])  # fmt: skip
def test_a_full_disk_is_known_through_every_library(save, tmp_path):
    with files_of_at_most(8192), pytest.raises((OSError, RuntimeError, SafetensorError)) as raised:
        save(str(tmp_path / "file"))
    assert storage_refusal(raised.value)
    assert storage_refusal(ValueError("a bug")) is None and storage_refusal(FileNotFoundError(2, "a bug")) is None
