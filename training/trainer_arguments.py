"""sentence-transformers' training arguments with this project's: what a stage of a run is trained with."""

import os
from dataclasses import dataclass
from functools import partial

import torch
from sentence_transformers import SentenceTransformerTrainingArguments

from ..encoding_finmatryoshka import best_precision
from .arguments import PAGES, ArgumentError, TrainingArguments
from .batches import PageBatchSampler


@dataclass
class FinTrainingArguments(TrainingArguments, SentenceTransformerTrainingArguments):  # type: ignore[misc]
    """Both groups in one; where they share a name, the project's default stands."""

    def __post_init__(self):
        # transformers wants to be told before it accepts bf16 without a GPU
        self.use_cpu = self.use_cpu or not (torch.cuda.is_available() or torch.backends.mps.is_available())
        self.precision = self.precision or best_precision("cuda" if torch.cuda.is_available() else "cpu")
        if self.precision not in ("fp16", "bf16", "fp32"):
            raise ArgumentError(f"--precision {self.precision}: fp16, bf16 or fp32")
        if self.precision == "fp16" and (self.use_cpu or not torch.cuda.is_available()):
            raise ArgumentError("--precision fp16 needs a GPU and this run is on the CPU; use bf16 or fp32")
        self.fp16, self.bf16 = self.precision == "fp16", self.precision == "bf16"
        if isinstance(self.batch_sampler, str) and self.batch_sampler != PAGES:
            raise ArgumentError(f"--batch_sampler {self.batch_sampler}: batches are made of pages; leave it out")
        self.batch_sampler = partial(PageBatchSampler, siblings=self.siblings)
        if self.tokens_per_forward is None:
            self.tokens_per_forward = 0 if torch.cuda.is_available() and not self.use_cpu else 2048
        if self.dataloader_num_workers is None:
            # so that a GPU never waits for tokens; the CPU has nothing to spare
            self.dataloader_num_workers = 0 if self.use_cpu or not torch.cuda.is_available() else workers_of_a_gpu()
        if self.dataloader_num_workers:
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # threads do not survive the fork
        self.learning_rate_mapping = {r"numeric_heads": self.numeric_learning_rate}
        # 'true' and 'false' are what a flag can say
        if isinstance(self.resume_from_checkpoint, str) and self.resume_from_checkpoint.lower() in ("true", "false"):
            self.resume_from_checkpoint = self.resume_from_checkpoint.lower() == "true"
        super().__post_init__()


def workers_of_a_gpu() -> int:
    """Up to 4 processes that tokenise, one core left to the training itself."""
    return min(4, max(1, (os.cpu_count() or 2) - 1))
