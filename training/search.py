"""Hyper-parameter search with Optuna: can be killed, resumed and shared between processes.

    python train_st.py search recipes/search.yaml --trials 8 --output finmatryoshka-search

Beside the trainer's own ``hyperparameter_search``, so that a trial is exactly a training run (`train_st.train`): what the
search reports, a run with ``best_params.yaml`` reports again. Each of the asked-for trials is a numbered slot in the storage;
processes take waiting slots, and one whose process died is marked failed and queued again.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import optuna
import psutil
import sqlalchemy
import torch
import yaml
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError
from transformers import TrainerCallback

from ..data.splits import FinancialData
from ..eval.environment import release_memory
from ..eval.retrieval import EncodeOnce, evaluate_retrieval
from . import run
from .report import evaluation_tasks

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
OBJECTIVES = {"quality": "maximize", "numbers": "minimize"}
MAX_FAILURES_IN_A_ROW = 3


class SearchError(ValueError):
    """A search that cannot go on; the message says what to do."""


class TrialFailure(RuntimeError):
    """A trial that failed for a known reason; the search records it and goes on."""


def check_space(space: dict) -> dict:
    """``space`` merged over the default one. Raises `SearchError` for an unknown name or a range that is none."""
    merged = {name: entry for name, entry in (SPACE | (space or {})).items() if entry is not None}
    for name, entry in merged.items():
        if name not in SPACE and name not in OPTIONAL:
            raise SearchError(f"space: unknown name {name!r}; known are {', '.join([*SPACE, *OPTIONAL])}")
        if isinstance(entry, dict) and isinstance(entry.get("choices"), list) and entry["choices"]:
            continue
        if not isinstance(entry, dict) or not {"low", "high"} <= entry.keys():
            raise SearchError(f"space: {name} needs 'low' and 'high', or 'choices'")
        if not entry["low"] < entry["high"]:
            raise SearchError(f"space: {name} has low {entry['low']} and high {entry['high']}; low must be below high")
        if entry.get("log") and entry["low"] <= 0:
            raise SearchError(f"space: {name} is logarithmic, so low must be above 0, not {entry['low']}")
    return merged


def suggest(trial: optuna.Trial, space: dict) -> dict:
    """Values of one trial. Lists among choices are offered as text, as storages keep plain values only."""
    values = {}
    for name, entry in space.items():
        if "choices" in entry:
            text = {yaml.safe_dump(choice, default_flow_style=True).strip(): choice for choice in entry["choices"]}
            plain = all(not isinstance(choice, list) for choice in entry["choices"])
            picked = trial.suggest_categorical(name, entry["choices"] if plain else list(text))
            values[name] = picked if plain else text[picked]
        else:
            values[name] = trial.suggest_float(name, entry["low"], entry["high"], log=entry.get("log", False))
    return values


def open_storage(url: str, heartbeat: int) -> RDBStorage:
    """Optuna's storage at ``url``, its tables made if need be. Raises `SearchError` when it cannot be opened."""
    for attempt in range(5):
        try:
            return RDBStorage(
                url, heartbeat_interval=heartbeat, grace_period=3 * heartbeat,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )  # fmt: skip
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            failure = (
                error  # perhaps another process was making the tables at the same moment: they are there next time
            )
            time.sleep(0.2 * (attempt + 1))
        except (ImportError, ValueError) as error:
            failure = error
            break
    reason = str(failure).strip().splitlines()[0]
    raise SearchError(
        f"--storage {shown(url)}: cannot be opened ({reason}); give a URL that Optuna takes, such as sqlite:///study.db"
    )


def shown(url: str) -> str:
    """``url`` without its password."""
    try:
        return sqlalchemy.make_url(url).render_as_string()
    except SQLAlchemyError:
        return url


class _Watch(TrainerCallback):
    """Reports nDCG@10 to the pruner as training goes, and stops at weights that are no numbers."""

    def __init__(self, trial: optuna.Trial, measure, steps: int, prune: bool):
        self.trial, self.measure, self.prune = trial, measure, prune
        self.at = {max(1, steps // 3), max(1, 2 * steps // 3)} - {steps}

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if not all(weight.isfinite().all() for weight in model.parameters()):
            raise TrialFailure("the weights became NaN or infinite")
        if not self.prune or state.global_step not in self.at:
            return
        was_training = model.training
        model.eval()
        self.trial.report(self.measure(model), state.global_step)
        model.train(was_training)
        if self.trial.should_prune():
            raise optuna.TrialPruned(f"pruned at step {state.global_step}")


class Search:
    """One process's share of a study.

    Args:
        recipe: Arguments of `train_st` (a YAML file and flags), the starting point of every trial.
        trials: Trials of the study in all, over all processes and restarts.
        space: See `SPACE`; checked.
        storage: An Optuna URL; shared by whoever works on the study.
        dim: The dimension whose nDCG@10 is the objective.
        objectives: ``quality``, or ``quality`` and ``numbers`` (Huber at that dimension) for a Pareto front.
        examples: Pairs that every trial sees, whatever its batch; what the recipe sees by default.
    """

    def __init__(
        self, recipe: list[str], trials: int, space: dict, storage: str, study_name: str = "finmatryoshka", dim: int = 128,
        objectives: tuple[str, ...] = ("quality",), examples: int | None = None, seed: int = 13, heartbeat: int = 10,
    ):  # fmt: skip
        self.recipe, self.trials, self.dim, self.objectives = recipe, trials, dim, objectives
        self.space = check_space(space)
        model_args, data_args, args = run.parse_arguments(recipe)
        if dim not in model_args.matryoshka_dims:
            raise SearchError(
                f"--dim {dim}: the recipe's dimensions are {', '.join(map(str, model_args.matryoshka_dims))}"
            )
        self.data: FinancialData = run.load_arguments_data(data_args)
        self.examples = examples or self._examples_of(args)
        self.base = None
        self.storage = open_storage(storage, heartbeat)
        self.study = optuna.create_study(
            storage=self.storage, study_name=study_name, load_if_exists=True, directions=[OBJECTIVES[name] for name in objectives],
            sampler=optuna.samplers.TPESampler(seed=seed + os.getpid(), constant_liar=True, n_startup_trials=5),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=3) if len(objectives) == 1 else optuna.pruners.NopPruner(),
        )  # fmt: skip

    def _examples_of(self, args) -> int:
        per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps
        return args.max_steps * per_step if args.max_steps > 0 else int(len(self.data.train) * args.num_train_epochs)

    def _base(self, model_args, model):
        """The untouched backbone, its vectors kept: it is the same for every trial."""
        if self.base is None:
            self.base = EncodeOnce(run.base_of(model_args, model))
        return self.base

    # --- slots ------------------------------------------------------------------------------------------------------

    def _taken(self) -> dict[int, list[optuna.trial.FrozenTrial]]:
        slots: dict[int, list] = {}
        for trial in self.study.get_trials(deepcopy=False):
            if "slot" in trial.user_attrs:
                slots.setdefault(trial.user_attrs["slot"], []).append(trial)
        return slots

    def _open(self, trials: list) -> bool:
        """Whether a slot still waits for a result: none of its trials ended, by success, pruning or a recorded failure."""
        return not any(t.state in (TrialState.COMPLETE, TrialState.PRUNED) or "reason" in t.user_attrs for t in trials)

    def remaining(self) -> int:
        taken = self._taken()
        return sum(self._open(taken.get(slot, [])) for slot in range(self.trials))

    def _enqueue(self) -> None:
        taken = self._taken()
        for slot in range(self.trials):
            if slot not in taken:
                self.study.enqueue_trial({}, user_attrs={"slot": slot})

    # --- one trial --------------------------------------------------------------------------------------------------

    def arguments(self, values: dict, output: str):
        """`train_st`'s three argument groups of a trial with ``values``."""
        flags = [*self.recipe]
        per_step = values.get("per_device_train_batch_size", 0) * values.get("gradient_accumulation_steps", 1)
        if per_step:
            values = values | {"max_steps": max(1, round(self.examples / per_step))}
        for name, value in values.items():
            flags += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
        return run.parse_arguments([*flags, "--output_dir", output, "--overwrite", "true"])

    def objective(self, trial: optuna.Trial):
        slot = trial.user_attrs.get("slot")
        rivals = [t for t in self._taken().get(slot, []) if t.number < trial.number and t.state != TrialState.FAIL]
        if slot is None or rivals:  # two processes came for the last slot at once
            trial.set_user_attr("surplus", True)
            raise TrialFailure("another process took this slot")
        tasks = evaluation_tasks(self.data)

        def measure(model) -> float:
            return sum(evaluate_retrieval(model, task, [self.dim])[self.dim].ndcg for task in tasks) / len(tasks)

        start = time.time()
        with tempfile.TemporaryDirectory() as folder:
            model_args, data_args, args = self.arguments(suggest(trial, self.space), f"{folder}/trial")
            args.logging_strategy = "no"  # a line per trial, not per step
            watch = _Watch(trial, measure, args.max_steps, len(self.objectives) == 1)
            report = run.train(
                model_args, data_args, args, data=self.data, callbacks=[watch], base=self._base, write=False
            )
            seen = args.max_steps * args.per_device_train_batch_size * args.gradient_accumulation_steps
        trial.set_user_attr("examples", seen)
        trial.set_user_attr("seconds", round(time.time() - start, 1))
        quality = sum(task["model"][self.dim] for task in report["retrieval"].values()) / len(report["retrieval"])
        errors = [numbers["heads"][self.dim]["huber"] for numbers in report["numbers"].values()]
        scores = {"quality": quality, "numbers": sum(errors) / len(errors)}
        return tuple(scores[name] for name in self.objectives) if len(self.objectives) > 1 else quality

    def run(self) -> optuna.Study:
        """Work until no slot is left that this process could take; returns the study."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._enqueue()
        failures: list[str] = []
        while self.remaining():
            waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            if not waiting:
                # The others are at work elsewhere, or died: a stale one is queued again once its heartbeat is overdue.
                optuna.storages.fail_stale_trials(self.study)
                if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                    time.sleep(1)
                continue
            self.study.optimize(
                self._recorded, n_trials=1, catch=(Exception,), gc_after_trial=True, callbacks=[self._tell(failures)]
            )
            if len(failures) >= MAX_FAILURES_IN_A_ROW and len(set(failures[-MAX_FAILURES_IN_A_ROW:])) == 1:
                raise SearchError(f"three trials in a row failed: {failures[-1]}; {advice(failures[-1])}")
        return self.study

    def _recorded(self, trial: optuna.Trial):
        try:
            return self.objective(trial)
        except optuna.TrialPruned:
            raise
        except Exception as error:
            if not trial.user_attrs.get("surplus"):
                trial.set_user_attr("reason", failure_reason(error))
            raise

    def _tell(self, failures: list[str]):
        def callback(study, trial):
            release_memory()  # here and not in the trial: a pruned one's exception still holds its model there
            if "reason" in trial.user_attrs:
                failures.append(trial.user_attrs["reason"])
            elif trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                failures.clear()
            values = "" if trial.values is None else " ".join(f"{value:.4f}" for value in trial.values)
            reason = trial.user_attrs.get("reason", "")
            done = self.trials - self.remaining()
            resident = psutil.Process().memory_info().rss >> 20
            print(
                f"[{done}/{self.trials}] trial {trial.number} {trial.state.name.lower()} {values}{reason} {_short(trial.params)}"
                f" ({resident} MiB resident)",
                flush=True,
            )

        return callback


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


def _short(params: dict) -> str:
    return ", ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items()
    )


# --- the result ---------------------------------------------------------------------------------------------------------


def write_results(search: Search, output: Path) -> dict:
    """``best_params.yaml`` (taken by train_st.py as it is), ``trials.csv`` and Optuna's pictures; returns the best values.

    Raises `SearchError` when no trial finished.
    """
    complete = search.study.get_trials(states=(TrialState.COMPLETE,))
    if not complete:
        reasons = {t.user_attrs["reason"] for t in search.study.get_trials() if "reason" in t.user_attrs}
        raise SearchError(f"no trial finished{': ' + '; '.join(sorted(reasons)) if reasons else ''}; nothing to report")
    best = (
        search.study.best_trial
        if len(search.objectives) == 1
        else max(search.study.best_trials, key=lambda t: t.values[0])
    )
    values = suggest(optuna.trial.FixedTrial(best.params), search.space)
    per_step = (
        values["per_device_train_batch_size"] * values["gradient_accumulation_steps"]
        if "per_device_train_batch_size" in values and "gradient_accumulation_steps" in values
        else 0
    )
    if per_step:
        values["max_steps"] = max(1, round(search.examples / per_step))
    output.mkdir(parents=True, exist_ok=True)
    recipe = recipe_values(search.recipe) | values
    with tempfile.TemporaryDirectory(dir=output) as folder:  # processes that end together each write the whole result
        beside = Path(folder)
        (beside / "best_params.yaml").write_text(
            f"# Best of {len(complete)} finished trials: {' '.join(f'{v:.6f}' for v in best.values)} ({', '.join(search.objectives)} at {search.dim}-d)\n"
            + yaml.safe_dump(recipe, sort_keys=False)
        )
        search.study.trials_dataframe().to_csv(beside / "trials.csv", index=False)
        _pictures(search, beside)
        for file in beside.iterdir():
            os.replace(file, output / file.name)
    return values


def recipe_values(recipe: list[str]) -> dict:
    """A recipe's YAML file and flags as one mapping."""
    values, name = {}, None
    flags = list(recipe)
    if flags and flags[0].endswith((".yaml", ".yml", ".json")):
        values = yaml.safe_load(Path(flags.pop(0)).read_text())
    for flag in flags:
        if flag.startswith("--"):
            name = flag[2:]
            values[name] = []
        else:
            values[name].append(yaml.safe_load(flag))
    return {name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in values.items()}


def _pictures(search: Search, output: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from optuna.visualization import matplotlib as draw

    target = None if len(search.objectives) == 1 else lambda trial: trial.values[0]
    plots = {"history": draw.plot_optimization_history, "parallel_coordinate": draw.plot_parallel_coordinate}
    if len(search.study.get_trials(states=(TrialState.COMPLETE,))) > 1:
        plots["importance"] = draw.plot_param_importances
    for name, plot in plots.items():
        axes = plot(search.study, target=target, target_name=f"nDCG@10 at {search.dim}")
        axes.figure.savefig(output / f"{name}.png", bbox_inches="tight")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "python train_st.py search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", help="YAML file of train_st.py's arguments; further flags of train_st.py may follow")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--storage", help="any Optuna URL; default: a SQLite file in --output")
    parser.add_argument("--output", default="finmatryoshka-search", type=Path)
    parser.add_argument("--space", type=Path, help="YAML mapping over the default space")
    parser.add_argument("--dim", type=int, default=128, help="whose nDCG@10 is the objective")
    parser.add_argument("--objectives", nargs="+", choices=tuple(OBJECTIVES), default=["quality"])
    parser.add_argument("--examples", type=int, help="pairs each trial sees; default: as many as the recipe")
    parser.add_argument("--study", default="finmatryoshka")
    parser.add_argument(
        "--heartbeat", type=int, default=10, help="seconds; a trial silent three times as long is queued again"
    )
    arguments, flags = parser.parse_known_args(argv)
    if arguments.trials < 1:
        raise SearchError(f"--trials {arguments.trials}: ask for at least one")
    try:
        space = yaml.safe_load(arguments.space.read_text()) if arguments.space else {}
    except (OSError, yaml.YAMLError) as error:
        raise SearchError(f"--space {arguments.space}: cannot be read ({str(error).splitlines()[0]})") from None
    check_space(space)
    # oneDNN keeps compiled kernels of up to 1,024 shapes, and every trial brings new ones; read at the first matrix product.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    arguments.output.mkdir(parents=True, exist_ok=True)
    storage = arguments.storage or f"sqlite:///{(arguments.output / 'study.db').resolve()}"
    search = Search(
        [arguments.recipe, *flags], arguments.trials, space, storage, arguments.study, arguments.dim, tuple(arguments.objectives),
        arguments.examples, heartbeat=arguments.heartbeat,
    )  # fmt: skip
    search.run()
    values = write_results(search, arguments.output)
    print(f"best: {_short(values)}")
    print(
        f"written: {arguments.output / 'best_params.yaml'}, trials.csv and pictures; look closer with optuna-dashboard {shown(storage)}"
    )
