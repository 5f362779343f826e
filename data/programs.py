"""FinQA's program language (Chen et al. 2021, section 3.2), flat or nested: read whole or refused, then executed.

Flat as in ``program``: ``subtract(5829, 5735), divide(#0, 5735)``; nested as in ``program_re``:
``divide(subtract(5829, 5735), 5735)``. The ``table_*`` operations take a row's name and ``none``.
"""

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .numbers import parse_number

_ARITHMETIC: dict[str, Callable] = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv,
    "exp": operator.pow, "greater": lambda a, b: "yes" if a > b else "no",
}  # fmt: skip
_OF_A_ROW: dict[str, Callable] = {"table_sum": sum, "table_max": max, "table_min": min, "table_average": np.mean}

_OPENING = re.compile(r"\s*(\w+)\s*\(")
# Row names hold commas and brackets of their own: a table operation ends at its ", none)".
_ROW = re.compile(r"\s*(.*?)\s*,\s*none\s*\)")
_ARGUMENT = re.compile(r"\s*([^(),]+?)\s*(?=[,)])")


@dataclass(frozen=True)
class Step:
    """One operation; its arguments are texts as written (a row's name for ``table_*``) or steps nested in it."""

    operation: str
    arguments: tuple["str | Step", ...]


def read_program(program: str) -> list[Step]:
    """The steps of a program. Raises ``ValueError`` unless it is understood from its first to its last character."""
    program = (program or "").strip()
    steps: list[Step] = []
    position = 0
    while position < len(program) or not steps:
        step, position = _read_step(program, position)
        steps.append(step)
        if position < len(program):
            comma = re.compile(r"\s*,\s*(?=\w)").match(program, position)
            if comma is None:
                raise ValueError(f"program {program!r}: {program[position:]!r} is left over")
            position = comma.end()
    return steps


def _read_step(program: str, position: int) -> tuple[Step, int]:
    opening = _OPENING.match(program, position)
    if opening is None:
        raise ValueError(f"program {program!r} has no step at {program[position:]!r}")
    operation, position = opening[1], opening.end()
    if operation in _OF_A_ROW:
        row = _ROW.match(program, position)
        if row is None:
            raise ValueError(f"program {program!r} is cut off in {operation}")
        return Step(operation, (row[1],)), row.end()
    if operation not in _ARITHMETIC:
        raise ValueError(f"program {program!r}: unknown operation {operation!r}")
    arguments: list[str | Step] = []
    while True:
        argument: str | Step
        if _OPENING.match(program, position):
            argument, position = _read_step(program, position)
        elif match := _ARGUMENT.match(program, position):
            argument, position = match[1], match.end()
        else:
            raise ValueError(f"program {program!r} is cut off in {operation}")
        arguments.append(argument)
        end = re.compile(r"\s*([,)])").match(program, position)
        if end is None:
            raise ValueError(f"program {program!r} is cut off in {operation}")
        position = end.end()
        if end[1] == ")":
            break
    if len(arguments) != 2:
        raise ValueError(f"program {program!r}: {operation} takes 2 arguments, not {len(arguments)}")
    return Step(operation, tuple(arguments)), position


def execute_program(program: str, table: list[list[str]]) -> float | str:
    """Run a FinQA program over its page's ``table``: a float, or "yes"/"no" for ``greater``.

    Arguments are numbers (percentages as fractions), ``const_100`` constants, ``#k`` (the k-th step's result) or, for
    the ``table_*`` operations, a row's name. Raises ``ValueError`` for anything else.
    """
    results: list[float | str] = []

    def value_of(argument: str | Step) -> float | str:
        if isinstance(argument, Step):
            return run(argument)
        if argument.startswith("#"):
            if not argument[1:].isdecimal() or int(argument[1:]) >= len(results):
                raise ValueError(f"program {program!r}: {argument!r} is no step before it")
            return results[int(argument[1:])]
        constant = argument.removeprefix("const_")
        value = -1.0 if argument == "const_m1" else parse_number(constant)
        if math.isnan(value):
            raise ValueError(f"program {program!r}: {argument!r} is no number")
        return value

    def run(step: Step) -> float | str:
        if step.operation in _OF_A_ROW:
            return float(_OF_A_ROW[step.operation](_row_values(str(step.arguments[0]), table, program)))
        try:
            result = _ARITHMETIC[step.operation](*map(value_of, step.arguments))
        except (ZeroDivisionError, OverflowError, TypeError) as error:
            raise ValueError(f"program {program!r}: {error}") from None
        if isinstance(result, complex) or (isinstance(result, float) and not math.isfinite(result)):
            raise ValueError(f"program {program!r}: {step.operation} gives no finite number")
        return result

    for step in read_program(program):
        results.append(run(step))
    return results[-1]


def _row_values(name: str, table: list[list[str]], program: str) -> list[float]:
    for row in table:
        if row and str(row[0]).strip() == name:
            values = [value for value in map(parse_number, row[1:]) if not math.isnan(value)]
            if values:
                return values
    raise ValueError(f"program {program!r}: the table has no row {name!r} with numbers")


def program_arguments(program: str) -> tuple[list[str], list[str]]:
    """What a program takes from its page: the figures as written (no constants, no ``#k``), and the names of rows."""
    figures: list[str] = []
    rows: list[str] = []

    def visit(step: Step) -> None:
        for argument in step.arguments:
            if isinstance(argument, Step):
                visit(argument)
            elif step.operation in _OF_A_ROW:
                rows.append(argument)
            elif not argument.startswith(("#", "const_")):
                figures.append(argument)

    for step in read_program(program):
        visit(step)
    return figures, rows
