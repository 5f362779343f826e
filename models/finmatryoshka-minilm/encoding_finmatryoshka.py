"""How texts become batches, and in which precision a model reads them.

This file is copied unchanged into every saved folder, beside the model that uses it, and imports only torch.
"""

from collections.abc import Callable, Iterator, Mapping

import torch

# Tokens of a batch, padding included: what stays in a CPU's caches, and what fills a GPU.
BATCH_TOKENS = {"cpu": 2048, "cuda": 65536}
# Texts whose tokens are held at a time.
TOKENISED = 1024
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def check_texts(texts) -> list[str]:
    """``texts`` as a list, whatever holds them, or a ``TypeError`` that says what is no text."""
    if isinstance(texts, (bytes, Mapping)) or any(hasattr(texts, name) for name in ("columns", "column_names")):
        raise TypeError(f"texts is a {type(texts).__name__}: give a list of strings, for a table one of its columns")
    texts = [texts] if isinstance(texts, str) else list(texts)
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            kind = type(text).__name__
            raise TypeError(f"texts[{position}] is {kind}, not a string: leave it out or write it as text")
    return texts


def batches_by_length(
    texts: list[str], tokenize: Callable, tokens: int, size: int | None = None
) -> Iterator[tuple[list[int], dict[str, list]]]:
    """(positions, their rows of what ``tokenize`` gives) of ``texts``, roughly the longest first.

    A batch holds as many as make ``tokens`` with their padding, at least one, or ``size`` texts.
    """
    by_characters = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    for start in range(0, len(texts), TOKENISED):
        block = by_characters[start : start + TOKENISED]
        columns = tokenize([texts[i] for i in block])
        lengths = [len(ids) for ids in columns["input_ids"]]
        order = sorted(range(len(block)), key=lambda i: -lengths[i])
        while order:
            count = size or max(1, tokens // max(1, lengths[order[0]]))
            batch, order = order[:count], order[count:]
            yield [block[i] for i in batch], {name: [rows[i] for i in batch] for name, rows in columns.items()}


def tokens_per_batch(device: str) -> int:
    """`BATCH_TOKENS` of a kind of device; of one that is not listed, the CPU's."""
    return BATCH_TOKENS.get(device, BATCH_TOKENS["cpu"])


def best_precision(device: str) -> str:
    """fp16 on CUDA, bf16 where the CPU multiplies it natively (AVX512-BF16 or AMX), else fp32."""
    if device == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return "bf16"
    return "fp16" if device == "cuda" else "fp32"


def resolve_precision(precision: str, device: str) -> str:
    """One of `PRECISIONS`: ``precision`` itself, or of "auto" the `best_precision`. Raises a ``ValueError``."""
    precision = best_precision(device) if precision == "auto" else precision
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}: auto, {', '.join(PRECISIONS)}")
    return precision


def multiplying_in(precision: str, device: str) -> torch.autocast:
    """The context in which a kind of ``device`` multiplies in ``precision`` (see `resolve_precision`)."""
    dtype = PRECISIONS[resolve_precision(precision, device)]
    return torch.autocast(device, dtype, enabled=dtype is not None)
