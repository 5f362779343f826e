"""The trainer beside a bare loop over its own batches, interleaved in one run: what the trainer itself costs.

The bare loop has the batches ready where the model is, and does nothing but forward, backward and fused AdamW.
"""

import itertools
import statistics
import tempfile
import time
from typing import Any

import torch
from transformers import TrainerCallback

from ..data.decontamination import Decontamination
from ..data.loading import load_source
from ..data.splits import FinancialData
from ..eval.stopwatch import count_flops, matrix_peak, ratios
from .operations import autocast, build_model, make_trainer
from .recipe import Recipe, Stage

BARE, TRAINER = "a bare loop over the same batches", "the trainer"


def speed_stage(base: str, data: str, length: int, dims: list[int], pages: int, steps: int, folder: str) -> Stage:
    """A run of ``steps`` steps of ``pages`` pages that saves, logs and sends nothing."""
    flags = {
        "backbone": base, "data": data, "max_seq_length": length, "matryoshka_dims": " ".join(map(str, dims)),
        "per_device_train_batch_size": pages, "max_steps": steps, "output_dir": folder, "overwrite": "true",
        "projection_init": "identity", "logging_strategy": "no", "disable_tqdm": "true", "learning_rate": 0,
        "numeric_learning_rate": 0,
    }  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", *str(value).split())]
    return Recipe.read(words).only_stage()


def measure_trainer(
    base: str, data: str, length: int, dims: list[int], pages: int, steps: int, repeats: int
) -> list[dict]:
    """Rows of ``variant``, ``ratio`` of its speed to the bare loop's (median, least, most), ``pairs per second``,
    ``share of peak`` and ``memory`` (bytes that the GPU held at most; None on a CPU): the bare loop, the trainer.

    Args:
        base, data, length, dims: The encoder, a labelled source, tokens of a page, and dimensions.
        pages: Of a step.
        steps: That count; one more before them warms up.
        repeats: How often both take their turn, after a round that does not count.
    """
    with tempfile.TemporaryDirectory() as folder:
        stage = speed_stage(base, data, length, dims, pages, steps + 1, folder)
        examples = load_source(data, "train").examples
        sides = FinancialData(examples, {}, [], {}, {}, Decontamination.of([]))  # nothing is kept of this training
        model = build_model(stage, sides, base)
        seconds: dict[str, list[float]] = {BARE: [], TRAINER: []}
        peaks: dict[str, int | None] = dict.fromkeys(seconds)
        for repeat in range(repeats + 1):
            clock = _Clock()
            trainer = make_trainer(stage, sides, model, folder, [clock])
            # read here, where nothing else runs: the trainer reads the same once more, by the same seed
            batches = [
                trainer.collect_features(batch) for batch in itertools.islice(trainer.get_train_dataloader(), steps + 1)
            ]
            bare, peaks[BARE] = _bare_loop(trainer, stage, batches), _gpu_peak()
            trainer.train()
            peaks[TRAINER] = _gpu_peak()
            if repeat:  # the first round warms up
                seconds[BARE].append(bare)
                seconds[TRAINER].append(clock.seconds)
        pairs = sum(len(features[0]["input_ids"]) for features, _ in batches[1:])
        flops = sum(count_flops(lambda batch=batch: _backward(trainer, stage, *batch)) for batch in batches[1:])
    peak, speed = matrix_peak(), ratios(seconds, BARE)
    return [
        {
            "variant": name,
            "ratio": speed[name],
            "pairs per second": pairs / statistics.median(times),
            "share of peak": flops / statistics.median(times) / peak,
            "memory": peaks[name],
        }
        for name, times in seconds.items()
    ]


def _backward(trainer, stage: Stage, features: list, labels, scaler: Any = None) -> None:
    # the caller's batch is used again: the loss takes copies
    with autocast(stage.training, trainer.model.device):
        value = trainer.loss([dict(column) for column in features], labels)
    total = sum(value.values())
    (scaler.scale(total) if scaler else total).backward()


def _bare_loop(trainer, stage: Stage, batches: list) -> float:
    """Seconds of a step on each of ``batches`` but the first."""
    model, device = trainer.model.train(), trainer.model.device
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=stage.training.fp16)
    started = 0.0
    for number, (features, labels) in enumerate(batches):
        if number == 1:
            started = _now()
        _backward(trainer, stage, features, labels, scaler)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    return _now() - started


class _Clock(TrainerCallback):
    """``seconds`` from the end of the first step to the end of the last."""

    def __init__(self):
        self.started, self.seconds = 0.0, 0.0

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 1:
            self.started = _now()
        if state.global_step == state.max_steps:
            self.seconds = _now() - self.started


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _gpu_peak() -> int | None:
    """What the GPU held at most since the last call."""
    if not torch.cuda.is_available():
        return None
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return peak
