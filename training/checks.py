"""What refuses a run before any work: values that cannot be, and folders that are somebody's."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..eval.models import load_model
from .arguments import ArgumentError
from .averaging import check_trained_folder
from .backbone import check_backbone
from .checkpoints import is_complete
from .concepts import concept_names
from .recipe import OPERATIONS, Stage
from .teacher import load_teacher


def _from(low: float) -> Callable[[Any], bool]:
    return lambda value: low <= value < math.inf


def _share(value: float) -> bool:
    return 0 <= value <= 1


# By argument: what its value must satisfy (a NaN satisfies nothing), and how that is said. None is the argument's own
# default.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_seq_length": (_from(8), "at least 8 tokens"),
    "backbone_dropout": (lambda v: 0 <= v < 1, "from 0 to below 1"),
    "projection_init": (lambda v: v in ("pca", "identity"), "'pca' or 'identity'"),
    "attn_implementation": (lambda v: v in ("sdpa", "eager"), "'sdpa' or 'eager'"),
    "synthetic_pairs": (_from(0), "0 or more"),
    "fresh_pairs": (_from(0), "0 or more"),
    "fact_pairs": (_from(0), "0 or more"),
    "passage_pairs": (_from(0), "0 or more"),
    "concept_pairs": (lambda v: len(v) == 2 and v[1].isdigit() and int(v[1]) > 0, "a FILE and how many pairs of it"),
    "page_words": (_from(1), "at least 1"),
    "labelled_repeats": (_from(1), "at least 1"),
    "holdout": (lambda v: 0 < v < 1, "between 0 and 1"),
    "learning_rate": (_from(0), "0 or more"),
    "numeric_learning_rate": (_from(0), "0 or more"),
    "per_device_train_batch_size": (_from(1), "at least 1"),
    "per_device_eval_batch_size": (_from(1), "at least 1"),
    "gradient_accumulation_steps": (_from(1), "at least 1"),
    "mini_batch_size": (_from(1), "at least 1"),
    "num_train_epochs": (_from(0), "0 or more"),
    "max_steps": (lambda v: v == -1 or v >= 1, "at least 1 (or -1: as many as --num_train_epochs gives)"),
    "warmup_steps": (_from(0), "0 or more"),
    "weight_decay": (_from(0), "0 or more"),
    "max_grad_norm": (_from(0), "0 or more"),
    "save_steps": (lambda v: v > 0, "above 0"),
    "logging_steps": (lambda v: v > 0, "above 0"),
    "temperature": (lambda v: 0 < v < math.inf, "above 0"),
    "numeric_weight": (_from(0), "0 or more"),
    "matryoshka_weights": (lambda v: all(map(_from(0), v)) and any(v), "0 or more each, and not all 0"),
    "questions_per_page": (_from(1), "at least 1"),
    "siblings": (_share, "from 0 to 1"),
    "tokens_per_forward": (_from(0), "0 (no limit) or more"),
    "keep_tokens": (lambda v: 0 < v <= 1, "above 0, at most 1"),
    "teacher_weight": (_share, "from 0 to 1"),
    "teacher_temperature": (lambda v: 0 < v < math.inf, "above 0"),
    "anchor_weight": (_share, "from 0 to 1"),
    "seed": (lambda v: 0 <= v < 2**32, "from 0 to 4294967295"),
    "base_share": (_share, "from 0 to 1"),
    "operation": (lambda v: v in OPERATIONS, "train, average or refit"),
}


def check_stages(stages: list[Stage]) -> None:
    """Refuse what cannot work before anything is loaded or written.

    Raises:
        ArgumentError: a value, a combination or the output folder.
        BackboneError: the backbone or a folder to average.
        DataError: a table of concepts that cannot be read.
        EvaluationError: a model to compare with that cannot be loaded.
        TeacherError: a teacher that cannot be loaded.
    """
    for stage in stages:
        check_values(stage)
    trained = [stage for stage in stages if stage.operation == "train"]
    if any(s.training.passage_teacher for s in trained) and not any(s.data.passage_pairs for s in trained):
        raise ArgumentError("--passage_teacher: there is nothing to teach; say how many --passage_pairs")
    last = stages[-1]
    args = last.training
    check_output(args.output_dir, replace=bool(args.overwrite or args.resume_from_checkpoint))
    if args.push_to_hub and not args.hub_model_id:
        raise ArgumentError("--push_to_hub: name the repository with --hub_model_id org/name")
    if isinstance(args.resume_from_checkpoint, str):
        _check_checkpoint(args.resume_from_checkpoint, len(stages))
    dims = last.model.matryoshka_dims
    try:
        check_backbone(last.model.backbone, dims)
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise ArgumentError(f"--matryoshka_dims: {error}") from None
    teachers: dict[str, str] = {}  # by name, the argument that gave it: stages share them, and each is loaded once
    for number, stage in enumerate(stages):
        if stage.operation == "train":
            if stage.data.concept_pairs:
                concept_names(stage.data.concept_pairs[0])
            for argument in ("teacher", "passage_teacher"):
                teachers |= {name: argument for name in stage.value(argument) or [] if name not in teachers}
        _check_inputs(stage, before=number)
    for name, argument in teachers.items():
        load_teacher(name, argument)
    if not args.skip_evaluation:
        for name in last.data.beside or []:
            load_model(name)


def _check_checkpoint(path: str, stages: int) -> None:
    if stages > 1:
        raise ArgumentError("--resume_from_checkpoint: is true or false for a recipe with stages; each finds its own")
    if not is_complete(Path(path)):
        raise ArgumentError(
            f"--resume_from_checkpoint {path}: holds no complete checkpoint; pass true to find the last one"
        )


def check_values(stage: Stage) -> None:
    """Hold every argument against `RULES`, and those that must fit each other."""
    for name, (fits, wanted) in RULES.items():
        value = stage.value(name)
        if value is not None and not fits(value):
            raise ArgumentError(f"--{name} {_shown(value)}: must be {wanted}")
    weights, dims = stage.training.matryoshka_weights, stage.model.matryoshka_dims
    if weights is not None and len(weights) != len(dims):
        raise ArgumentError(f"--matryoshka_weights: {len(weights)} for {len(dims)} dimensions; give one each")
    if stage.operation == "train" and stage.training.max_steps == -1 and stage.training.num_train_epochs == 0:
        raise ArgumentError(
            "--num_train_epochs 0: trains nothing; averages and refits are operations (docs/training.md)"
        )
    if stage.operation != "average" and stage.data.passage_pairs and not stage.data.synthesize:
        raise ArgumentError(
            "--passage_pairs: there is nothing to take passages from; name filing pages with --synthesize"
        )
    if stage.operation == "refit" and not (stage.options.projection or stage.options.heads):
        raise ArgumentError("refit: neither the projection nor the heads; leave the stage out")


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _check_inputs(stage: Stage, before: int) -> None:
    """Hold a stage with so many stages ``before`` it against what it goes on from."""
    dims, folders, first = stage.model.matryoshka_dims, stage.options.folders or [], before == 0
    if stage.operation == "average":
        earlier = stage.options.earlier or []
        if len(folders) + len(earlier) + (not first) + (stage.options.base_share > 0) < 2:
            raise ArgumentError(
                "average: there is one model and nothing to average with; name --folders or --base_share"
            )
        for number in earlier:
            if not 0 < number < before:
                raise ArgumentError(
                    f"--earlier {number}: is no stage before the last one (which joins anyway) of the {before} before "
                    "this average; number them from 1"
                )
        if first and not folders:
            raise ArgumentError("average: is the first stage, so name trained --folders")
    if stage.operation == "refit" and first:
        check_trained_folder(stage.model.backbone, dims)
    for folder in folders:
        check_trained_folder(folder, dims)


def check_output(output: str, replace: bool) -> None:
    """Refuse an output that is no folder, somebody's (unless it may be replaced), or holds the work itself."""
    path = Path(output)
    if not output.strip():
        raise ArgumentError("--output_dir: is empty; name a folder")
    if path.is_file():
        raise ArgumentError(f"--output_dir {output}: is a file; name a folder")
    here = Path.cwd().resolve()
    if path.resolve() in (here, *here.parents, Path.home().resolve()):
        raise ArgumentError(f"--output_dir {output}: is or holds the current folder; name a folder of the model's own")
    if path.is_dir() and any(path.iterdir()) and not replace:
        raise ArgumentError(f"--output_dir {output}: is not empty; name another folder or pass --overwrite")
