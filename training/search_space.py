"""What a search varies: the default space, a user's changes to it, and one trial's values from it."""

from typing import Any

import optuna
import yaml
from transformers import TrainingArguments

from .arguments import ArgumentError

# The default space. A mapping in a YAML file (--space) replaces or adds entries; null removes one.
SPACE = {
    "learning_rate": {"low": 1e-6, "high": 1e-3, "log": True},
    "per_device_train_batch_size": {"choices": [4, 8, 16]},
    "weight_decay": {"low": 0.0, "high": 0.1},
    "temperature": {"low": 0.05, "high": 0.2},
    "gradient_accumulation_steps": {"choices": [1, 2, 4]},
}
# What else may be searched: --space names it.
OPTIONAL = (
    "numeric_weight",
    "numeric_learning_rate",
    "matryoshka_weights",
    "warmup_steps",
    "projection_init",
    "max_seq_length",
)
# Those of which a range is drawn in whole numbers.
WHOLE = ("per_device_train_batch_size", "gradient_accumulation_steps", "max_seq_length")


class SearchError(ArgumentError):
    """A search that cannot go on; the message says what to do."""


def check_space(space: dict) -> dict:
    """``space`` merged over the default one. Raises `SearchError` for an unknown name or a range that is none."""
    if not isinstance(space or {}, dict):
        raise SearchError("space: holds no mapping of names to ranges")
    merged = {name: entry for name, entry in (SPACE | (space or {})).items() if entry is not None}
    for name, entry in merged.items():
        if name not in SPACE and name not in OPTIONAL:
            raise SearchError(f"space: unknown name {name!r}; known are {', '.join([*SPACE, *OPTIONAL])}")
        if isinstance(entry, dict) and isinstance(entry.get("choices"), list) and entry["choices"]:
            continue
        if not isinstance(entry, dict) or not {"low", "high"} <= entry.keys():
            raise SearchError(f"space: {name} needs 'low' and 'high', or 'choices'")
        merged[name] = entry = entry | {side: _number(entry[side], name) for side in ("low", "high")}
        if not entry["low"] < entry["high"]:
            raise SearchError(f"space: {name} has low {entry['low']} and high {entry['high']}; low must be below high")
        if entry.get("log") and entry["low"] <= 0:
            raise SearchError(f"space: {name} is logarithmic, so low must be above 0, not {entry['low']}")
    return merged


def _number(value: Any, name: str) -> int | float:
    """A bound of a range; YAML reads 1e-5 as text."""
    try:
        return int(value) if name in WHOLE else float(value)
    except (TypeError, ValueError):
        wanted = "whole number" if name in WHOLE else "number"
        raise SearchError(f"space: {name} has a bound {value!r}, which is no {wanted}") from None


def suggest(trial: optuna.trial.BaseTrial, space: dict) -> dict:
    """Values of one trial. Lists among choices are offered as text, as storages keep plain values only."""
    values = {}
    for name, entry in space.items():
        if "choices" in entry:
            text = {yaml.safe_dump(choice, default_flow_style=True).strip(): choice for choice in entry["choices"]}
            plain = all(not isinstance(choice, list) for choice in entry["choices"])
            picked = trial.suggest_categorical(name, entry["choices"] if plain else list(text))
            values[name] = picked if plain else text[picked]
        else:
            draw = trial.suggest_int if name in WHOLE else trial.suggest_float
            values[name] = draw(name, entry["low"], entry["high"], log=entry.get("log", False))
    return values


def steps_of(values: dict, examples: int, recipe: TrainingArguments) -> int:
    """The steps in which a trial with ``values``, else those of the ``recipe``, sees ``examples`` pages."""
    batch, accumulated = (
        values.get(name, getattr(recipe, name))
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps")
    )
    return max(1, round(examples / (batch * accumulated)))
