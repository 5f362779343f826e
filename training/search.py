"""Hyper-parameter search with Optuna: can be killed, resumed and shared between processes.

    python train_st.py search recipes/search.yaml --trials 8 --output finmatryoshka-search

Beside the trainer's own ``hyperparameter_search``, so that a trial is exactly a training run (`operations.train`): what
the search reports, a run with ``best_params.yaml`` reports again. Each of the asked-for trials is a numbered slot in
the storage; processes take waiting slots, and one whose process died is marked failed and queued again by Optuna's
retry callback. (Optuna's ``MaxTrialsCallback`` lets every process finish the trial at hand, so that a shared study ends
with more than it was asked for.)
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import optuna
import psutil
import yaml
from optuna.trial import TrialState
from transformers import TrainerCallback

from ..data.splits import FinancialData
from ..eval.environment import release_memory
from ..eval.retrieval import EncodeOnce, evaluate_retrieval
from .checks import check_values
from .datasets import training_datasets
from .operations import base_of, scaler_of, train
from .recipe import Recipe, Stage
from .report import evaluation_tasks, learning_report
from .run import load_arguments_data
from .search_report import advice, failure_reason, short, write_results
from .search_space import SearchError, check_space, steps_of, suggest
from .search_storage import open_storage, shown

OBJECTIVES: dict[str, Literal["maximize", "minimize"]] = {"quality": "maximize", "numbers": "minimize"}
MAX_FAILURES_IN_A_ROW = 3


class TrialFailure(RuntimeError):
    """A trial that failed for a known reason; the search records it and goes on."""


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
        examples: Pages, each with its questions, that every trial sees, whatever its batch; what the recipe sees by
            default.
    """

    def __init__(
        self, recipe: list[str], trials: int, space: dict, storage: str, study_name: str = "finmatryoshka",
        dim: int = 128, objectives: tuple[str, ...] = ("quality",), examples: int | None = None, seed: int = 13,
        heartbeat: int = 10,
    ):  # fmt: skip
        self.trials, self.dim, self.objectives, self.seed = trials, dim, objectives, seed
        self.recipe, self.space = Recipe.read(recipe), check_space(space)
        stage = self.recipe.only_stage()
        check_values(stage)
        if stage.operation != "train":
            raise SearchError(f"{self.recipe.name}: trains nothing; a search varies a training run")
        if dim not in stage.model.matryoshka_dims:
            raise SearchError(
                f"--dim {dim}: the recipe's dimensions are {', '.join(map(str, stage.model.matryoshka_dims))}"
            )
        self.data: FinancialData = load_arguments_data(stage.data)
        self.start, self.examples = stage.training, examples or self._examples_of(stage)
        self.base: EncodeOnce | None = None
        self.storage = open_storage(storage, heartbeat)
        self.study = optuna.create_study(
            storage=self.storage, study_name=study_name, load_if_exists=True,
            directions=[OBJECTIVES[name] for name in objectives],
            pruner=(
                optuna.pruners.MedianPruner(n_startup_trials=3)
                if len(objectives) == 1
                else optuna.pruners.NopPruner()
            ),
        )  # fmt: skip

    def _examples_of(self, stage: Stage) -> int:
        args = stage.training
        per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps
        if args.max_steps > 0:
            return args.max_steps * per_step
        rows = training_datasets(self.data, stage.data, None, args.seed, None)
        return int(sum(map(len, rows.values())) * args.num_train_epochs)

    def _base(self, stage: Stage, model) -> EncodeOnce:
        """The untouched backbone, its vectors kept: it is the same for every trial."""
        if self.base is None:
            self.base = EncodeOnce(base_of(stage.model, model))
        return self.base

    # --- slots ------------------------------------------------------------------------------------------------------

    def _taken(self) -> dict[int, list[optuna.trial.FrozenTrial]]:
        slots: dict[int, list] = {}
        for trial in self.study.get_trials(deepcopy=False):
            if "slot" in trial.user_attrs:
                slots.setdefault(trial.user_attrs["slot"], []).append(trial)
        return slots

    def _open(self, trials: list) -> bool:
        """Whether a slot still waits for a result: none of its trials ended, by success, pruning or a recorded
        failure."""
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

    def stage(self, values: dict, output: str) -> Stage:
        """The recipe's stage with a trial's ``values``, checked."""
        steps = steps_of(values, self.examples, self.start)
        # a line per trial, not per step
        stage = self.recipe.only_stage(**values, max_steps=steps, output_dir=output, logging_strategy="no")
        check_values(stage)
        return stage

    def objective(self, trial: optuna.Trial):
        slot: Any = trial.user_attrs.get("slot")
        rivals = [t for t in self._taken().get(slot, []) if t.number < trial.number and t.state != TrialState.FAIL]
        if slot is None or rivals:  # two processes came for the last slot at once
            trial.set_user_attr("surplus", True)
            raise TrialFailure("another process took this slot")
        # A seed per slot, not per process: whoever takes it, and however often the search was killed, proposes the
        # same.
        self.study.sampler = optuna.samplers.TPESampler(seed=self.seed + slot, constant_liar=True, n_startup_trials=5)
        tasks = evaluation_tasks(self.data)

        def measure(model) -> float:
            return sum(evaluate_retrieval(model, task, [self.dim])[self.dim].ndcg for task in tasks) / len(tasks)

        start = time.time()
        with tempfile.TemporaryDirectory() as folder:
            stage = self.stage(suggest(trial, self.space), folder)
            args = stage.training
            watch = _Watch(trial, measure, args.max_steps, len(self.objectives) == 1)
            model = train(stage, self.data, stage.model.backbone, folder, callbacks=[watch])
            report = learning_report(model, self._base(stage, model), self.data, scaler_of(model))
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
                f"[{done}/{self.trials}] trial {trial.number} {trial.state.name.lower()} {values}{reason} "
                f"{short(trial.params)} ({resident} MiB resident)",
                flush=True,
            )

        return callback

    def write_results(self, output: Path) -> dict:
        """What the study found, into ``output``; see `search_report.write_results`."""
        objective = f"{', '.join(self.objectives)} at {self.dim}-d"
        return write_results(self.study, self.recipe, self.space, self.examples, objective, output)


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
    parser.add_argument("--examples", type=int, help="pages each trial sees; default: as many as the recipe")
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
    # oneDNN keeps compiled kernels of up to 1,024 shapes, and every trial brings new ones; read at the first matrix
    # product.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    Recipe.read([arguments.recipe, *flags])  # says what is wrong with it before a folder is made
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SearchError(f"--output {arguments.output}: cannot be written ({error.strerror})") from None
    storage = arguments.storage or f"sqlite:///{(arguments.output / 'study.db').resolve()}"
    search = Search(
        [arguments.recipe, *flags], arguments.trials, space, storage, arguments.study, arguments.dim,
        tuple(arguments.objectives), arguments.examples, heartbeat=arguments.heartbeat,
    )  # fmt: skip
    search.run()
    values = search.write_results(arguments.output)
    print(f"best: {short(values)}")
    print(
        f"written: {arguments.output / 'best_params.yaml'}, trials.csv and pictures; look closer with optuna-dashboard "
        f"{shown(storage)}"
    )
