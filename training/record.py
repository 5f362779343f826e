"""training.json: what a reader needs to train the same again, and what may not be measured with the result."""

import json
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

from ..data.encoders import encoder_folder
from ..data.files import file_sha256
from ..data.splits import FinancialData
from ..eval.environment import describe_machine
from ..sentence_transformers_config.folder import with_earlier
from .arguments import ArgumentError
from .recipe import USED, Stage

_TRAINING = (
    "learning_rate", "numeric_learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps",
    "num_train_epochs", "max_steps", "warmup_steps", "weight_decay", "lr_scheduler_type", "temperature",
    "numeric_weight", "matryoshka_weights", "mini_batch_size", "siblings", "keep_tokens",
    "teacher", "passage_teacher", "teacher_weight", "teacher_temperature", "anchor_weight", "precision", "seed",
)  # fmt: skip


def stage_record(stage: Stage, data: FinancialData, inputs: list[str]) -> dict:
    """The record of a stage that went on from the folders ``inputs``: arguments, hashes, versions, machine, what was
    before.

    ``trained_on`` are the hashes of the training sources; where the evaluation side was held out of these files,
    ``held_out`` is its share. ``previous`` is the record of what it goes on from; an average has ``averaged`` instead,
    those of all its models, by folder.
    """
    given = stage.data
    names = _TRAINING if stage.operation == "train" else USED[stage.operation]
    held_out = None if given.eval_data else given.holdout
    sources = {
        name: data.hashes.get(name) for name in given.data if held_out is not None or name not in data.evaluation
    }
    earlier = {folder: record for folder in inputs if (record := record_of(folder)) is not None}
    record = {
        "operation": stage.operation,
        "model": vars(stage.model),
        "data": vars(given),
        "training": {name: stage.value(name) for name in names},
        "sources_sha256": data.hashes,
        "synthesized_sha256": _hashes(given.synthesize or []),
        "concepts_sha256": _hashes((given.concept_pairs or [])[:1]),
        "trained_on": sources,
        "held_out": held_out,
        "dropped": data.dropped,
        "train_examples": len(data.train),
        **describe_machine(),
    }
    if stage.operation == "average":
        record["averaged"] = earlier
    else:
        record["previous"] = next(iter(earlier.values()), None)
    return json.loads(to_json(record))


def record_of(name: str) -> dict | None:
    """The record of what a run starts from: a folder, a packaged encoder, or a repository on the Hub; None where there
    is none, or none can be reached."""
    folder = Path(encoder_folder(name))
    if not folder.is_dir():
        try:
            folder = Path(hf_hub_download(name, "training.json")).parent
        except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError, OSError):
            return None
    return read_record(folder)


def read_record(folder: str | Path) -> dict | None:
    """The record in a folder of this machine; None where there is none."""
    path = Path(folder) / "training.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def to_json(record: dict) -> str:
    return json.dumps(record, indent=2, default=str) + "\n"


def _hashes(names: list[str]) -> dict[str, str]:
    return {name: file_sha256(name) for name in names if Path(name).is_file()}


def check_unseen(data: FinancialData, folders: list[str], held_out: float | None) -> None:
    """Refuse to measure on what was trained on, in this run or in those that left ``folders``.

    Args:
        data: This run's two sides.
        folders: What the run starts from or averages.
        held_out: The share of the pages that this run holds out of its own training sources; None with ``--eval_data``.

    Raises:
        ArgumentError: naming the source.
    """
    seen = {(example.question, example.page.page_id) for example in data.train}
    earlier = [record for folder in folders for record in with_earlier(record_of(folder))]
    for name, source in data.evaluation.items():
        if any((example.question, example.page.page_id) in seen for example in source.examples):
            raise ArgumentError(f"{name}: has questions that are trained on; its figures would prove nothing")
        for record in earlier:
            was_trained_on = source.sha256 in record.get("trained_on", {}).values()
            if was_trained_on and (held_out is None or record["held_out"] != held_out):
                raise ArgumentError(
                    f"{name}: an earlier run trained on it, so its figures would prove nothing; name other --eval_data"
                )
