"""From a recipe file (YAML or JSON) and flags to the stages of a run, each an operation with its arguments."""

import dataclasses
import difflib
import json
import os
from argparse import SUPPRESS, Action, ArgumentTypeError
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, NoReturn, cast

import yaml
from transformers import HfArgumentParser

from .arguments import ArgumentError, DataArguments, ModelArguments, StageArguments
from .help import PROGRAM
from .trainer_arguments import FinTrainingArguments

GROUPS = (ModelArguments, DataArguments, FinTrainingArguments, StageArguments)
OPERATIONS = ("train", "average", "refit")
# One value for the whole run: a stage cannot have its own.
RUN_WIDE = (
    "backbone", "base", "matryoshka_dims", "data", "eval_data", "corpus", "beside", "holdout", "skip_invalid",
    "output_dir", "overwrite", "resume_from_checkpoint", "keep_checkpoints", "skip_evaluation", "push_to_hub",
    "hub_model_id", "hub_private_repo",
)  # fmt: skip
# What the two operations that train nothing read of a stage's own arguments; training reads all but what is theirs.
USED = {
    "average": ("folders", "earlier", "base_share", "max_seq_length"),
    "refit": ("projection", "heads", "temperature", "matryoshka_weights", "synthesize", "fresh_pairs",
              "passage_pairs", "seed", "precision", "max_seq_length"),
}  # fmt: skip
# Names of earlier versions, and what does it now.
RETIRED = {
    "then": "list the phases under `stages`",
    "average_with": "give `operation: average` with `folders`",
    "average_with_base": "add a stage `operation: average` with `base_share`",
    "refit_projection": "add a stage `operation: refit`",
    "refit_heads": "add a stage `operation: refit`",
}
# Where the recipes look for the files that $DATA names.
DATA = "../shared/data"
_NOT_GIVEN = object()
# What averages and refits alone read.
_NOT_TRAINING = {field.name for field in dataclasses.fields(StageArguments)} - {"operation"} | {"fresh_pairs"}


@dataclass(frozen=True)
class Stage:
    """One operation of a run and its arguments."""

    model: ModelArguments
    data: DataArguments
    training: FinTrainingArguments
    options: StageArguments

    @property
    def operation(self) -> str:
        return self.options.operation

    def value(self, name: str) -> Any:
        """The argument ``name``, whichever group holds it."""
        return next(getattr(group, name) for group in vars(self).values() if hasattr(group, name))


@dataclass(frozen=True)
class Recipe:
    """What a file and the flags behind it say: ``shared`` values, and each stage's ``own``, of which flags are taken
    out."""

    name: str
    shared: dict[str, Any]
    own: list[dict[str, Any]]

    @classmethod
    def read(cls, argv: Sequence[str]) -> "Recipe":
        """Read flags, or one YAML/JSON file and the flags that override it.

        Raises:
            ArgumentError: a file that cannot be read, an unknown name, a value of another type; in one line.
        """
        # what the library asks for is a NewType of Any, which no class is
        parser = _Parser(GROUPS, **PROGRAM)  # type: ignore[arg-type]
        if argv and argv[0].endswith((".yaml", ".yml", ".json")):
            name, written, flags = argv[0], _read_mapping(argv[0]), _read_flags(parser, argv[1:])
        else:
            name, written, flags = "command line", {}, _read_flags(parser, argv)
        listed = written.pop("stages", [{}])
        if not (isinstance(listed, list) and listed and all(isinstance(stage, dict) for stage in listed)):
            raise ArgumentError(f"{name}: `stages` must be a list of mappings, each with an `operation`")
        shared, own = _convert(parser, written, name), []
        for number, stage in enumerate(listed, 1):
            where = f"{name}: stage {number}"
            values = _convert(parser, stage, where)
            if "stages" in stage:
                raise ArgumentError(f"{where}: stages cannot hold stages")
            _check_own(values, where)
            own.append({key: value for key, value in values.items() if key not in flags})
            if "seed" in flags and "seed" in values:  # as far from the flag's as from the recipe's
                distance = values["seed"] - shared.get("seed", FinTrainingArguments.seed)
                if flags["seed"] + distance < 0:
                    raise ArgumentError(
                        f"--seed {flags['seed']}: {where}'s own seed, {values['seed']}, would move below 0; give at "
                        f"least {-distance}"
                    )
                own[-1]["seed"] = flags["seed"] + distance
        if len(own) > 1 and "operation" in shared | flags:
            raise ArgumentError(f"{name}: every stage names its own operation; leave `operation` out beside `stages`")
        _check_used(shared | flags, own, name)
        return cls(name, shared | flags, own)

    def stages(self, **changes: Any) -> list[Stage]:
        """The stages in their order; ``changes`` override everything. Raises `ArgumentError` for values that cannot
        be."""
        return [_stage(self.shared | own | changes) for own in self.own]

    def only_stage(self, **changes: Any) -> Stage:
        """The one stage of a recipe that may have no more. Raises `ArgumentError`."""
        if len(self.own) > 1:
            raise ArgumentError(f"{self.name}: has {len(self.own)} stages; give a recipe of one")
        return self.stages(**changes)[0]


def read_stages(argv: Sequence[str]) -> list[Stage]:
    """The stages that flags, or a recipe file and flags, ask for; see `Recipe`."""
    return Recipe.read(argv).stages()


class _Parser(HfArgumentParser):
    def error(self, message: str):
        raise ArgumentError(message.removeprefix("argument "))


def _read_flags(parser: _Parser, flags: Sequence[str]) -> dict[str, Any]:
    """The values of the flags that are given, and no defaults."""
    if {"-h", "--help"} & set(flags):
        parser.parse_args(["--help"])
    parser.set_defaults(**{action.dest: _NOT_GIVEN for action in parser._actions if action.default != SUPPRESS})
    given, unknown = parser.parse_known_args(flags)
    if unknown:
        name = unknown[0].partition("=")[0]
        if not name.startswith("--"):
            raise ArgumentError(f"{name}: belongs to no flag; name a recipe (.yaml, .yml or .json) first, then flags")
        _refuse_name(parser, name[2:], "--")
    return {name: value for name, value in vars(given).items() if value is not _NOT_GIVEN}


def _read_mapping(path: str) -> dict[str, Any]:
    """A recipe's values; ``$DATA`` in it is the folder that the environment variable of that name says, or ours."""
    try:
        text = Template(Path(path).read_text(encoding="utf-8")).safe_substitute(DATA=os.environ.get("DATA", DATA))
        values = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise ArgumentError(f"{path}: cannot be read as a YAML or JSON mapping ({reason})") from None
    if not isinstance(values, dict):
        raise ArgumentError(f"{path}: holds no mapping of argument names to values")
    return values


def _convert(parser: _Parser, values: dict, where: str) -> dict[str, Any]:
    """A file's ``values`` as the parser would give them; null stays None and means the argument's default."""
    converted = {}
    for name, value in values.items():
        action = parser._option_string_actions.get(f"--{name}")
        if action is None or action.dest != name:
            _refuse_name(parser, str(name), f"{where}: ")
        converted[name] = None if value is None else _typed(action, value, f"{where}: {name}")
    return converted


def _typed(action: Action, value: Any, where: str) -> Any:
    if action.nargs == "+":
        return [_one(action, item, where) for item in (value if isinstance(value, list) else [value])]
    return _one(action, value, where)


def _one(action: Action, value: Any, where: str) -> Any:
    if isinstance(value, list):
        raise ArgumentError(f"{where}: takes one value, not a list")
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    convert = cast(Callable[[str], Any], action.type)  # HfArgumentParser gives every argument one
    try:
        result = convert(text)
    except (ValueError, TypeError, ArgumentTypeError):
        wanted = {"string_to_bool": "true or false", "int": "a whole number", "float": "a number"}
        raise ArgumentError(f"{where}: {text!r} is not {wanted.get(convert.__name__, 'what it takes')}") from None
    if action.choices is not None and result not in action.choices:
        raise ArgumentError(f"{where}: {text!r} is not one of {', '.join(map(str, action.choices))}")
    return result


def _refuse_name(parser: _Parser, name: str, where: str) -> NoReturn:
    if name in RETIRED:
        raise ArgumentError(f"{where}{name}: is no argument any more; {RETIRED[name]} (docs/training.md)")
    near = difflib.get_close_matches(name, [action.dest for action in parser._actions], 1)
    raise ArgumentError(f"{where}{name}: no such argument{f'; did you mean {near[0]}?' if near else ''}")


def _check_own(values: dict[str, Any], where: str) -> None:
    """Refuse what a stage cannot have of its own, or what its operation would not read."""
    operation = values.get("operation", "train")
    if operation not in OPERATIONS:
        raise ArgumentError(f"{where}: operation {operation!r}: {', '.join(OPERATIONS[:-1])} or {OPERATIONS[-1]}")
    for name in values.keys() - {"operation"}:
        if name in RUN_WIDE:
            raise ArgumentError(f"{where}: {name} is one for the whole run; write it beside `stages`")
        if not _uses(operation, name):
            raise ArgumentError(f"{where}: {name} is nothing that `operation: {operation}` uses")


def _uses(operation: str, name: str) -> bool:
    """Whether an ``operation`` reads the argument ``name`` of a stage."""
    return name in USED[operation] if operation in USED else name not in _NOT_TRAINING


def _check_used(shared: dict[str, Any], own: list[dict[str, Any]], where: str) -> None:
    """Refuse a value beside the stages that belongs to an operation which none of them is."""
    operations = {values.get("operation", shared.get("operation", "train")) for values in own}
    for name in _NOT_TRAINING & shared.keys():
        if not any(_uses(operation, name) for operation in operations if operation in OPERATIONS):
            raise ArgumentError(f"{where}: {name} is nothing that `operation: {' or '.join(sorted(operations))}` uses")


def _stage(values: dict[str, Any]) -> Stage:
    groups: list[Any] = []
    values = {name: value for name, value in values.items() if value is not None}
    for group in GROUPS:
        names = {field.name for field in dataclasses.fields(group) if field.init}
        try:
            groups.append(group(**{name: value for name, value in values.items() if name in names}))
        except ArgumentError:
            raise
        except (ValueError, TypeError) as error:  # transformers' own checks of its arguments, as it makes them
            reason = " ".join(str(error).split())
            named = [
                n for n, v in values.items() if n in names and isinstance(v, str) and v in reason and n not in reason
            ]
            raise ArgumentError(f"--{named[0]}: {reason}" if named else reason) from error
    return Stage(*groups)
