"""One run: its stages in order, each from the folder of the one before, then the figures, and the Hub if asked."""

import contextlib
import tempfile
from pathlib import Path
from typing import cast

from accelerate import PartialState
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer

from ..data.files import check_writable, replace_file
from ..data.splits import FinancialData, load_data
from ..eval.run import EvaluationPlan, run_evaluation, write_results
from ..sentence_transformers_config.card import add_results
from ..sentence_transformers_config.folder import write_folder
from ..sentence_transformers_config.publish import publish
from .arguments import ArgumentError, DataArguments
from .checkpoints import RunFolder, StorageError, last_complete_checkpoint, storage_refusal
from .checks import check_stages
from .operations import average, base_of, refit, scaler_of, train
from .recipe import Stage
from .record import check_unseen, read_record, stage_record, to_json
from .report import learning_report


def run(stages: list[Stage], command: str | None = None) -> dict | None:
    """Run ``stages`` to the folder that the last one names; returns the report of what was learned.

    Args:
        stages: From `recipe.read_stages`.
        command: What the user typed, for the record.

    Returns:
        See `learning_report`; None without an evaluation, and on other than the main process.

    Raises:
        ArgumentError, BackboneError, DataError: before any work.
        StorageError: the disk takes no more; says what was kept.
        PublishError: the Hub refuses; the folder is there.
    """
    check_stages(stages)
    args, folder = stages[-1].training, RunFolder(stages[-1].training.output_dir, len(stages))
    main = args.process_index == 0
    held: contextlib.AbstractContextManager = contextlib.nullcontext()
    if main:
        check_writable(args.output_dir)
        held = folder.held(args.resume_from_checkpoint, args.overwrite, args.keep_checkpoints)
    with held:
        data = load_arguments_data(stages[-1].data)
        if args.push_to_hub:
            check_unseen(data, outside_folders(stages), held_out(stages[-1].data))
        model = run_in_order(stages, data, folder, command)
        if model is None:
            return None
        report = None if args.skip_evaluation else evaluate(stages[-1], model, data)
    if args.push_to_hub:
        evaluate_and_publish(stages[-1], data)
    return report


def load_arguments_data(data_args: DataArguments) -> FinancialData:
    return load_data(data_args.data, data_args.eval_data, data_args.corpus, data_args.skip_invalid, data_args.holdout)


def held_out(data_args: DataArguments) -> float | None:
    """The share of the pages held out of the training sources; None where others are named to evaluate on."""
    return None if data_args.eval_data else data_args.holdout


def outside_folders(stages: list[Stage]) -> list[str]:
    """Everything trained before that the run starts from: its backbone and the folders that it averages."""
    return [stages[0].model.backbone, *(name for stage in stages for name in stage.options.folders or [])]


def run_in_order(
    stages: list[Stage], data: FinancialData, folder: RunFolder, command: str | None
) -> SentenceTransformer | None:
    """Run every stage that is not finished yet and write what each leaves; the last one's model (None beside the main
    process)."""
    resume, main = stages[-1].training.resume_from_checkpoint, stages[-1].training.process_index == 0
    previous, model = None, None
    for number, stage in enumerate(stages, 1):
        if not main and all(later.operation != "train" for later in stages[number - 1 :]):
            return None  # one process averages and refits
        inputs = inputs_of(stage, previous, folder)
        record = {"command": command} | stage_record(stage, data, inputs)
        target = str(folder.finished(number))
        last = number == len(stages)
        if last or not (resume and is_finished(target, record)):
            if stage.operation == "train":
                checkpoint = checkpoint_of(resume, folder, number)
                model = train(stage, data, inputs[0], folder.checkpoints(number), checkpoint)
            elif main:
                model = average(stage, inputs) if stage.operation == "average" else refit(stage, data, inputs[0])
            if main and model is not None:
                save(model, target, record)
        if any(later.operation == "train" for later in stages[number:]):  # the others read the folder, too
            PartialState().wait_for_everyone()
        previous = target
    return model if main else None


def inputs_of(stage: Stage, previous: str | None, folder: RunFolder) -> list[str]:
    """What a stage goes on from: the folder of the one before and those that it averages, else the backbone."""
    if stage.operation == "average":
        earlier = [str(folder.finished(number)) for number in stage.options.earlier or []]
        return [*([previous] if previous else []), *earlier, *(stage.options.folders or [])]
    return [previous or stage.model.backbone]


def checkpoint_of(resume: str | bool | None, folder: RunFolder, number: int) -> str | None:
    """The checkpoint that stage ``number`` goes on from."""
    return last_complete_checkpoint(folder.checkpoints(number)) if resume is True else resume or None


def is_finished(folder: str, record: dict) -> bool:
    """Whether a stage left its folder in an earlier try of the same run. Raises `ArgumentError` where it was another
    run."""
    earlier = read_record(folder)
    if earlier is None:
        return False
    for part in ("operation", "model", "data", "training", "sources_sha256"):
        if earlier[part] != record[part]:
            raise ArgumentError(
                f"--resume_from_checkpoint: {folder} was made with other arguments ({part}); start without it and with "
                "--overwrite true"
            )
    return True


def save(model: SentenceTransformer, target: str, record: dict) -> None:
    """Write the folder of a stage; where the disk refuses, elsewhere. Raises `StorageError` that says where."""
    files = {"training.json": to_json(record)}
    try:
        write_folder(model, target, files)
    except (OSError, RuntimeError, SafetensorError) as error:
        if (reason := storage_refusal(error)) is None:
            raise
        raise StorageError(
            f"{target}: cannot be written ({reason}); {_kept_elsewhere(model, target, files)}"
        ) from error


def _kept_elsewhere(model: SentenceTransformer, target: str, files: dict[str, str]) -> str:
    try:
        place = Path(tempfile.mkdtemp(prefix="finmatryoshka-")) / Path(target).name
        write_folder(model, place, files)
    except (OSError, RuntimeError, SafetensorError) as error:
        if storage_refusal(error) is None:
            raise
        return "neither does the temporary folder take it; complete checkpoints are kept, make room and resume"
    return f"what was trained is in {place}: make room and move it"


def evaluate(stage: Stage, model: SentenceTransformer, data: FinancialData) -> dict:
    """The closing report, also added to the folder's record: a long training does not depend on it."""
    report = learning_report(model, base_of(stage.model, model), data, scaler_of(model), stage.data.beside or [])
    path = Path(stage.training.output_dir) / "training.json"
    try:
        replace_file(path, to_json(cast(dict, read_record(path.parent)) | {"report": report}))
    except OSError as error:
        reason = storage_refusal(error) or error
        raise StorageError(f"{path}: does not take the report ({reason}); the model beside it is complete") from error
    return report


def evaluate_and_publish(stage: Stage, data: FinancialData) -> None:
    """Measure the finished folder on the run's own evaluation side, write its card from the figures, and send it."""
    args, folder = stage.training, Path(stage.training.output_dir)
    plan = EvaluationPlan(
        [str(folder)], list(data.evaluation), stage.model.matryoshka_dims, stage.data.corpus or [], stage.data.data,
        stage.model.base or stage.model.backbone, seed=args.seed, skip_invalid=stage.data.skip_invalid,
    )  # fmt: skip
    repo_id = cast(str, args.hub_model_id)  # `check_stages` asked for it
    with tempfile.TemporaryDirectory() as results:
        write_results(*run_evaluation(plan, data), Path(results))
        add_results(folder, Path(results), repo_id)
    print(f"published: {publish(folder, repo_id, public=args.hub_private_repo is False)}")
