"""The three operations of a run, each from a folder (or a backbone) to a model: train, average, refit."""

import copy
import dataclasses
import os
import tempfile
from collections.abc import Sequence
from typing import cast

import torch
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from transformers import TrainerCallback, set_seed

from ..data.numbers import SignedLogScaler
from ..data.splits import FinancialData
from ..encoding_finmatryoshka import multiplying_in
from ..eval.numeric import labelled
from ..sentence_transformers_config.folder import finmatryoshka_of
from .arguments import ModelArguments
from .averaging import aligned, average_weights, encoder_weights, folder_weights
from .backbone import as_sentence_transformer, check_backbone, load_finmatryoshka, start_projection
from .checkpoints import StorageError, storage_refusal, sweep_incomplete
from .datasets import page_collator, synthesized, training_datasets, training_rows, unlabelled_pages
from .losses import FinMatryoshkaLoss
from .mpnet_attention import set_attention
from .passages import short_passages
from .recipe import Stage
from .refit import refit_heads, refit_projection
from .trainer_arguments import FinTrainingArguments

PCA_TEXTS = 600
# Which prompt goes before which training column.
COLUMN_PROMPTS = {
    "question": "query",
    "page": "document",
    "negative": "document",
    "fact": "document",
    "passage": "document",
    "synonym": "query",
    "numeric_text": "numeric",
}


def train(
    stage: Stage, data: FinancialData, start: str, checkpoints: str | os.PathLike, resume: str | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> SentenceTransformer:  # fmt: skip
    """Train on ``data.train`` from the backbone or folder ``start`` with sentence-transformers' trainer.

    Args:
        checkpoints: The trainer's folder.
        resume: The checkpoint to go on from.
        callbacks: Further callbacks of the trainer.

    Raises:
        StorageError: the disk takes no checkpoint.
    """
    set_seed(stage.training.seed)
    model = build_model(stage, data, start)
    trainer = make_trainer(stage, data, model, checkpoints, callbacks)
    try:
        trainer.train(resume_from_checkpoint=resume)
    except (OSError, RuntimeError, SafetensorError) as error:
        if (reason := storage_refusal(error)) is None:
            raise
        # closes the progress bar, so that the message has a line of its own
        trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
        sweep_incomplete(str(trainer.args.output_dir))
        raise StorageError(
            f"{trainer.args.output_dir}: takes no checkpoint at step {trainer.state.global_step} ({reason}); complete "
            "ones are kept: make room and pass --resume_from_checkpoint true"
        ) from error
    trainer.accelerator.wait_for_everyone()
    return model.eval()


def make_trainer(
    stage: Stage, data: FinancialData, model: SentenceTransformer, checkpoints: str | os.PathLike,
    callbacks: Sequence[TrainerCallback] = (),
) -> SentenceTransformerTrainer:  # fmt: skip
    """The trainer of a stage: its columns with their prompts, its loss, its batches."""
    args, config = stage.training, finmatryoshka_of(model).config
    # weight 0 trains nothing through the numeric texts, so that they need no encoding
    scaler = scaler_of(model) if args.numeric_weight else None
    prompts = {name: config.prompts[kind] for name, kind in COLUMN_PROMPTS.items() if config.prompts[kind]}
    # what is published is the finished folder, not a checkpoint
    args = _changed(args, {"output_dir": str(checkpoints), "prompts": prompts or None, "push_to_hub": False})
    with autocast(args, model.device):
        datasets = training_datasets(data, stage.data, scaler, args.seed, model)
        eval_dataset = training_rows(data.eval_examples, scaler) if args.eval_strategy != "no" else None
        read = [*datasets.values(), *([eval_dataset] if eval_dataset else [])]
        collator = page_collator(model, args, read, untouched=stage.model.base or stage.model.backbone)
    loss = FinMatryoshkaLoss(
        model, args.temperature, args.numeric_weight, args.matryoshka_weights, args.mini_batch_size,
        gather_across_devices=args.world_size > 1,
        teacher_weight=args.teacher_weight, teacher_temperature=args.teacher_temperature,
        anchor_weight=args.anchor_weight,
    )  # fmt: skip
    return SentenceTransformerTrainer(
        model=model,
        args=args,
        train_dataset=datasets if len(datasets) > 1 else next(iter(datasets.values())),
        eval_dataset=eval_dataset,
        data_collator=collator,
        loss=loss,
        callbacks=list(callbacks),
    )


def _changed(args: FinTrainingArguments, changes: dict) -> FinTrainingArguments:
    """A copy of ``args``; not `dataclasses.replace`, which would set up devices once more."""
    args = copy.copy(args)
    for name, value in changes.items():
        setattr(args, name, value)
    return args


def average(stage: Stage, folders: Sequence[str]) -> SentenceTransformer:
    """The mean of trained ``folders`` (a model soup), and of that the stage's share of the untouched backbone
    (WiSE-FT)."""
    model = open_trained(stage.model, folders[0])
    core = finmatryoshka_of(model)
    others = [aligned(folder_weights(folder, core), core) for folder in folders[1:]]
    if others:
        average_weights(core, others, share=len(others) / len(folders))
    if stage.options.base_share:
        start = encoder_weights(stage.model.base or stage.model.backbone, core)
        average_weights(core, [start], stage.options.base_share)
    return model


def refit(stage: Stage, data: FinancialData, start: str) -> SentenceTransformer:
    """The trained folder ``start`` with its projection and numeric heads (as the stage asks) fitted once more."""
    args, model = stage.training, open_trained(stage.model, start)
    if stage.options.projection:
        fresh = synthesized(data, stage.data, stage.data.fresh_pairs, args.seed, set_aside=True)
        if count := stage.data.passage_pairs:
            pages = unlabelled_pages(data, stage.data, set_aside=True)
            fresh += short_passages(pages, count, args.seed, data.decontamination.leaks)
        with autocast(args, model.device):
            refit_projection(model, data.train, fresh, args.temperature, args.matryoshka_weights)
    if stage.options.heads:
        known = labelled(data.train)
        z = scaler_of(model).transform([example.number for example in known])
        core = finmatryoshka_of(model)
        refit_heads(core, [e.numeric_text for e in known], z, [e.page.page_id for e in known], args.seed)
    return model


def build_model(stage: Stage, data: FinancialData, start: str) -> SentenceTransformer:
    """The SentenceTransformer to train; of an untouched backbone, projection and numeric scale are fitted on the
    training side."""
    model_args, model = stage.model, _load(stage.model, start)
    core = finmatryoshka_of(model)
    fresh = (core.config.numeric_mean, core.config.numeric_std) == (0.0, 1.0)
    set_attention(core.backbone, model_args.attn_implementation)
    if fresh:
        scaler = SignedLogScaler.fit([example.number for example in data.train])
        core.config.numeric_mean, core.config.numeric_std = scaler.mean, scaler.std
        texts = [text for example in data.train for text in (example.question, example.page.text)]
        with autocast(stage.training, model.device):
            start_projection(model, texts[:: max(1, len(texts) // PCA_TEXTS)], model_args.projection_init)
    return model


def open_trained(model_args: ModelArguments, folder: str) -> SentenceTransformer:
    """A folder that a run left, to be changed without training."""
    return _load(dataclasses.replace(model_args, backbone_dropout=0.0), folder).eval()


def _load(model_args: ModelArguments, start: str) -> SentenceTransformer:
    given = {"query": model_args.query_prompt, "document": model_args.document_prompt}
    prompts = {name: prompt for name, prompt in given.items() if prompt is not None} or None
    folder, _ = check_backbone(start, model_args.matryoshka_dims)
    model = load_finmatryoshka(
        folder, model_args.matryoshka_dims, model_args.max_seq_length, model_args.backbone_dropout, prompts
    )
    with tempfile.TemporaryDirectory() as initial:
        return as_sentence_transformer(model, folder, initial, model_args.strip_punctuation)


def base_of(model_args: ModelArguments, model: SentenceTransformer) -> SentenceTransformer:
    """The untouched backbone as its authors load it, with the model's prompts."""
    backbone, _ = check_backbone(model_args.base or model_args.backbone, model_args.matryoshka_dims)
    base = SentenceTransformer(backbone, device=str(model.device))
    base.prompts = dict(model.prompts)
    return base


def scaler_of(model: SentenceTransformer) -> SignedLogScaler:
    """The numeric scale that ``model`` was trained with."""
    config = finmatryoshka_of(model).config
    return SignedLogScaler(config.numeric_mean, config.numeric_std)


def autocast(args: FinTrainingArguments, device: torch.device) -> torch.autocast:
    """The run's precision for encoding outside of the trainer."""
    return multiplying_in(cast(str, args.precision), device.type)  # `FinTrainingArguments` has made it one of three
