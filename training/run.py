"""One training run: arguments → data → model → loss → trainer → refits → one folder, evaluated and published if asked."""

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from transformers import HfArgumentParser, TrainerCallback, set_seed

from ..data.files import replace_file
from ..data.numbers import SignedLogScaler
from ..data.splits import FinancialData, load_data
from ..eval.environment import describe_machine
from ..eval.run import EvaluationPlan, run_evaluation, write_results
from ..sentence_transformers_config.card import add_results
from ..sentence_transformers_config.folder import write_folder
from ..sentence_transformers_config.publish import publish
from .arguments import DataArguments, FinTrainingArguments, ModelArguments
from .averaging import average_weights, check_trained_folder, folder_weights, starting_weights
from .backbone import as_sentence_transformer, check_backbone, load_finmatryoshka, start_projection
from .checkpoints import last_complete_checkpoint
from .datasets import in_order, synthesized, training_columns, training_datasets
from .losses import FinMatryoshkaLoss
from .refit import refit_heads, refit_projection
from .report import learning_report

PCA_TEXTS = 1500


def parse_arguments(argv: list[str]) -> tuple[ModelArguments, DataArguments, FinTrainingArguments]:
    """The arguments of a run in one phase; see `parse_phases`."""
    phases = parse_phases(argv)
    if len(phases) > 1:
        raise ValueError(f"{argv[0]}: has two phases ('then'); give a recipe of one")
    return phases[0]


def parse_phases(argv: list[str]) -> list[tuple[ModelArguments, DataArguments, FinTrainingArguments]]:
    """Flags, or one YAML/JSON file whose values later flags override: the arguments of each phase.

    A file may hold a mapping ``then``: a second phase with those values changed, which goes on from the first one's folder.
    """
    parser = HfArgumentParser((ModelArguments, DataArguments, FinTrainingArguments))
    if not (argv and argv[0].endswith((".yaml", ".yml", ".json"))):
        return [parser.parse_args_into_dataclasses(argv)]
    try:
        values = yaml.safe_load(Path(argv[0]).read_text())
        then = values.pop("then", None)
    except (OSError, yaml.YAMLError, AttributeError) as error:
        raise ValueError(
            f"{argv[0]}: cannot be read as a YAML or JSON mapping ({str(error).splitlines()[0]})"
        ) from None
    first = parser.parse_args_into_dataclasses(_as_flags(values) + argv[1:])
    if then is None:
        return [first]
    backbone, output = first[0].backbone, first[2].output_dir
    between = {"output_dir": f"{output}.first", "overwrite": True, "skip_evaluation": True}
    onward = {"backbone": f"{output}.first", "base": backbone, "output_dir": output}
    return [
        parser.parse_args_into_dataclasses(_as_flags(values) + argv[1:] + _as_flags(between)),
        parser.parse_args_into_dataclasses(_as_flags(values | then) + argv[1:] + _as_flags(onward)),
    ]


def _as_flags(values: dict) -> list[str]:
    flags = []
    for name, value in values.items():
        if value is not None:
            flags += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return flags


def check_output(args: FinTrainingArguments) -> None:
    """Refuse to write over somebody's folder."""
    path = Path(args.output_dir)
    if path.is_file():
        raise ValueError(f"--output_dir {path}: is a file; name a folder")
    if path.is_dir() and any(path.iterdir()) and not (args.overwrite or args.resume_from_checkpoint):
        raise ValueError(f"--output_dir {path}: is not empty; name another folder or pass --overwrite")


def build_model(model_args: ModelArguments, data: FinancialData, folder: str) -> SentenceTransformer:
    """The SentenceTransformer to train, its projection and numeric scale fitted on the training side."""
    prompts = {"query": model_args.query_prompt, "document": model_args.document_prompt}
    prompts = {name: prompt for name, prompt in prompts.items() if prompt is not None} or None
    backbone, _ = check_backbone(model_args.backbone, model_args.matryoshka_dims)
    model = load_finmatryoshka(
        backbone, model_args.matryoshka_dims, model_args.max_seq_length, model_args.backbone_dropout, prompts
    )
    fresh = (model.config.numeric_mean, model.config.numeric_std) == (0.0, 1.0)
    if fresh:
        scaler = SignedLogScaler.fit([example.number for example in data.train])
        model.config.numeric_mean, model.config.numeric_std = scaler.mean, scaler.std
    model.backbone.set_attn_implementation(model_args.attn_implementation)
    sentence_model = as_sentence_transformer(model, backbone, folder)
    if fresh:
        texts = [text for example in data.train for text in (example.question, example.page.text)]
        start_projection(sentence_model, texts[:: max(1, len(texts) // PCA_TEXTS)], model_args.projection_init)
    return sentence_model


def base_of(model_args: ModelArguments, model: SentenceTransformer) -> SentenceTransformer:
    """The untouched backbone as its authors load it, with the model's prompts."""
    backbone, _ = check_backbone(model_args.base or model_args.backbone, model_args.matryoshka_dims)
    base = SentenceTransformer(backbone, device=str(model.device))
    base.prompts = dict(model.prompts)
    return base


def load_arguments_data(data_args: DataArguments) -> FinancialData:
    return load_data(data_args.data, data_args.eval_data, data_args.corpus, data_args.skip_invalid, data_args.holdout)


def train(
    model_args: ModelArguments, data_args: DataArguments, args: FinTrainingArguments, data: FinancialData | None = None,
    callbacks: list[TrainerCallback] = (), base: Callable | None = None, write: bool = True,
    command: str | None = None,
) -> dict | None:  # fmt: skip
    """Run training to its end; returns the report (None on other than the main process).

    Args:
        data: What ``data_args`` name, when it is loaded already.
        callbacks: Further callbacks of the trainer.
        base: Gives the untouched backbone; `base_of` by default. A search keeps one for all its trials.
        write: Leave the folder; a search only wants the report.
        command: What the user typed, for the record.
    """
    check_output(args)
    check_backbone(model_args.backbone, model_args.matryoshka_dims)
    for folder in args.average_with or []:
        check_trained_folder(folder, model_args.matryoshka_dims)
    data = data or load_arguments_data(data_args)
    final, run_dir = args.output_dir, f"{args.output_dir}.run"
    resume = args.resume_from_checkpoint
    if resume is True:
        resume = last_complete_checkpoint(run_dir)
        if resume is None:
            raise ValueError(f"--resume_from_checkpoint: {run_dir} holds no complete checkpoint; start without it")
    set_seed(args.seed)
    args.output_dir = run_dir
    with tempfile.TemporaryDirectory() as initial:
        model = build_model(model_args, data, initial)
    others = [folder_weights(folder, model[0].auto_model) for folder in args.average_with or []]
    start = starting_weights(model[0].auto_model) if args.average_with_base else None
    config = model[0].auto_model.config
    scaler = SignedLogScaler(config.numeric_mean, config.numeric_std)
    args.prompts = {name: config.prompts[kind] for name, kind in COLUMN_PROMPTS.items() if config.prompts[kind]} or None
    loss = FinMatryoshkaLoss(
        model, args.temperature, args.numeric_weight, args.matryoshka_weights, args.mini_batch_size,
        gather_across_devices=args.world_size > 1,
    )  # fmt: skip
    with torch.autocast(
        model.device.type, torch.float16 if args.fp16 else torch.bfloat16, enabled=args.fp16 or args.bf16
    ):
        datasets = training_datasets(data, data_args, scaler, args.per_device_train_batch_size, args.seed, model)
    if len(datasets) > 1:
        args.batch_sampler = in_order
    trainer = SentenceTransformerTrainer(
        model=model,
        args=args,
        train_dataset=datasets if len(datasets) > 1 else next(iter(datasets.values())),
        eval_dataset=training_columns(data.eval_examples, scaler) if args.eval_strategy != "no" else None,
        loss=loss,
        callbacks=list(callbacks),
    )
    if args.num_train_epochs > 0 or args.max_steps > 0:  # else only what follows is wanted: averages, refits
        trainer.train(resume_from_checkpoint=resume or None)
    trainer.accelerator.wait_for_everyone()
    if not trainer.is_world_process_zero():
        return None
    model.eval()
    if start:
        average_weights(model[0].auto_model, [start], args.average_with_base)
    if others:
        average_weights(model[0].auto_model, others, share=len(others) / (len(others) + 1))
    if args.refit_projection:
        fresh = synthesized(data, data_args, data_args.fresh_pairs, args.seed, set_aside=True)
        with trainer.accelerator.autocast():
            refit_projection(model, data.train, fresh, args.temperature, args.matryoshka_weights)
    if args.refit_heads:
        known = [example for example in data.train if math.isfinite(example.number)]
        z = scaler.transform([example.number for example in known])
        refit_heads(model[0].auto_model, [e.numeric_text for e in known], z, [e.page.page_id for e in known], args.seed)
    if write:  # before the evaluation, which a long training should not depend on
        record = {"command": command} | training_record(model_args, data_args, args, data)
        write_folder(model, final, {"training.json": to_json(record)})
    report = None
    if not args.skip_evaluation:
        report = learning_report(model, (base or base_of)(model_args, model), data, scaler)
        if write:
            replace_file(Path(final) / "training.json", to_json(record | {"report": report}))
    if not args.keep_checkpoints:
        shutil.rmtree(run_dir, ignore_errors=True)
    return report


def train_phases(phases: list[tuple], command: str | None = None) -> dict | None:
    """Run each phase from the folder of the one before, publish the last one if asked; returns its report."""
    model_args, data_args, last = phases[-1]
    check_output(last)
    push = last.push_to_hub
    if push and not last.hub_model_id:
        raise ValueError("--push_to_hub: name the repository with --hub_model_id org/name")
    folders = [args.output_dir for _, _, args in phases]
    for phase in phases:
        phase[2].push_to_hub = False  # the trainer would push checkpoints; what is published is the finished folder
        report = train(*phase, command=command)
    for folder in folders[:-1]:
        shutil.rmtree(folder, ignore_errors=True)
    if push and report is not None:
        evaluate_and_publish(folders[-1], model_args, data_args, last)
    return report


def evaluate_and_publish(
    folder: str, model_args: ModelArguments, data_args: DataArguments, args: FinTrainingArguments
) -> None:
    """Measure the finished ``folder``, write its card from the figures, and send it to ``args.hub_model_id``."""
    plan = EvaluationPlan(
        [folder], data_args.eval_data or data_args.data, model_args.matryoshka_dims, data_args.corpus or [], data_args.data,
        model_args.base or model_args.backbone, seed=args.seed, skip_invalid=data_args.skip_invalid,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as results:
        write_results(*run_evaluation(plan), Path(results))
        add_results(Path(folder), Path(results), args.hub_model_id)
    print(f"published: {publish(folder, args.hub_model_id, public=args.hub_private_repo is False)}")


# Which prompt goes before which training column.
COLUMN_PROMPTS = {
    "question": "query",
    "page": "document",
    "negative": "document",
    "fact": "document",
    "numeric_text": "numeric",
}


def training_record(model_args, data_args, args, data: FinancialData) -> dict:
    """What a reader needs to train the same again: arguments, data hashes, versions, machine."""
    earlier = Path(model_args.backbone) / "training.json"
    previous = json.loads(earlier.read_text()) if earlier.is_file() else None
    loss_fields = ("learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "max_steps",
                   "warmup_steps", "weight_decay", "temperature", "numeric_weight", "matryoshka_weights", "mini_batch_size",
                   "precision", "seed", "average_with_base", "average_with", "refit_projection", "refit_heads", "lr_scheduler_type")  # fmt: skip
    return {
        "model": vars(model_args),
        "data": vars(data_args),
        "training": {name: getattr(args, name) for name in loss_fields},
        "sources_sha256": data.hashes,
        "synthesized_sha256": {name: file_sha256(name) for name in data_args.synthesize or [] if Path(name).is_file()},
        "dropped": data.dropped,
        "train_examples": len(data.train),
        **describe_machine(),
        "previous": previous,
    }


def file_sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(record: dict) -> str:
    return json.dumps(record, indent=2, default=str) + "\n"
