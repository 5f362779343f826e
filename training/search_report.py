"""What a search leaves: the best parameters as a recipe, the table of trials, pictures, and why trials failed."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import torch
import yaml
from optuna.trial import TrialState

from .recipe import Recipe
from .search_space import SearchError, steps_of, suggest


def failure_reason(error: Exception) -> str:
    if (
        isinstance(error, torch.OutOfMemoryError)
        or isinstance(error, MemoryError)
        or "out of memory" in str(error).lower()
        or "can't allocate memory" in str(error).lower()
    ):
        return "out of memory"
    if "NaN or infin" in str(error):  # whether the weights showed it first or a vector
        return "the weights or a vector became NaN or infinite"
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def advice(reason: str) -> str:
    if reason == "out of memory":
        return "leave large batches out of the space, shorten --max_seq_length or set --mini_batch_size"
    if "NaN" in reason:
        return "lower the learning rate's upper end, or use --precision bf16 or fp32"
    return "run the recipe alone first"


def short(params: dict) -> str:
    return ", ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items()
    )


def write_results(
    study: optuna.Study, recipe: Recipe, space: dict, examples: int, objective: str, output: Path
) -> dict:
    """``best_params.yaml`` (taken by train_st.py as it is), ``trials.csv`` and Optuna's pictures; returns the best
    values.

    Args:
        recipe, space, examples: What the trials were made of.
        objective: What the first value of a trial is, in words.

    Raises:
        SearchError: no trial finished.
    """
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    if not complete:
        reasons = {t.user_attrs["reason"] for t in study.get_trials() if "reason" in t.user_attrs}
        raise SearchError(f"no trial finished{': ' + '; '.join(sorted(reasons)) if reasons else ''}; nothing to report")
    best = study.best_trial if len(study.directions) == 1 else max(study.best_trials, key=lambda t: t.values[0])
    values = suggest(optuna.trial.FixedTrial(best.params), space)
    values["max_steps"] = steps_of(values, examples, recipe.only_stage().training)
    scores = " ".join(f"{value:.6f}" for value in best.values)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output) as folder:  # processes that end together each write the whole result
        beside = Path(folder)
        (beside / "best_params.yaml").write_text(
            f"# Best of {len(complete)} finished trials: {scores} ({objective})\n"
            + yaml.safe_dump(recipe.shared | recipe.own[0] | values, sort_keys=False)
        )
        study.trials_dataframe().to_csv(beside / "trials.csv", index=False)
        _pictures(study, objective, beside)
        for file in beside.iterdir():
            os.replace(file, output / file.name)
    return values


def _pictures(study: optuna.Study, objective: str, output: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from optuna.visualization import matplotlib as draw

    target = None if len(study.directions) == 1 else lambda trial: trial.values[0]
    plots: dict[str, Callable[..., Any]] = {
        "history": draw.plot_optimization_history,
        "parallel_coordinate": draw.plot_parallel_coordinate,
    }
    if len(study.get_trials(states=(TrialState.COMPLETE,))) > 1:
        plots["importance"] = draw.plot_param_importances
    for name, plot in plots.items():
        axes = plot(study, target=target, target_name=objective)
        axes.figure.savefig(output / f"{name}.png", bbox_inches="tight")
