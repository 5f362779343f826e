"""FinQA's schema (Chen et al. 2021), nested, flat or as evidence alone; its rows as sentences and its program language."""

import math
import re

import numpy as np

from .numbers import agree, in_page_unit, parse_number
from .schema import Example, Page, text_id


def page_text(record: dict) -> str:
    """A FinQA page as MTEB's FinQARetrieval writes it."""
    return " ".join(record.get("pre_text") or []) + str(record["table"]) + " ".join(record.get("post_text") or [])


def page_facts(record: dict) -> dict[str, str]:
    """A FinQA page's sentences (``text_i``) and linearised rows (``table_i``), numbered as ``gold_inds`` numbers them."""
    sentences = list(record.get("pre_text") or []) + list(record.get("post_text") or [])
    facts = {f"text_{i}": sentence for i, sentence in enumerate(sentences)}
    table = record["table"]
    return facts | {f"table_{i}": linearise_row(table, i) for i in range(len(table))}


def linearise_row(table: list[list[str]], row: int) -> str:
    """A table row as FinQA writes it in ``gold_inds``: "the net sales of 2015 is 5735 ; the net sales of ..."."""
    header, cells = table[0], table[row]
    return " ; ".join(f"the {cells[0]} of {name} is {cell}" for name, cell in zip(header[1:], cells[1:])) + " ;"


def parse_finqa(record: dict):
    qa = record.get("qa") or record
    if not isinstance(qa.get("question"), str) or not qa["question"].strip():
        raise KeyError("question")
    has_text = any(str(part).strip() for part in (record.get("pre_text") or []) + (record.get("post_text") or []))
    if not record.get("table") and not has_text:
        raise KeyError("page")
    filename = record.get("filename") or str(record.get("id", "")).rsplit("-", 1)[0]
    text = page_text(record)
    parts = filename.split("/")
    page = Page(
        filename or text_id(text), text, parts[0] if len(parts) == 3 else "",
        int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else None, record.get("table"),
    )  # fmt: skip
    gold = qa.get("gold_inds") or qa.get("gold_evidence") or {}
    facts = list(gold.values()) if isinstance(gold, dict) else [str(fact) for fact in gold]
    executed = qa.get("exe_ans", qa.get("final_result"))
    yield Example(
        qa["question"],
        page,
        " ".join(facts) or text,
        finqa_number(qa.get("answer"), executed),
        page_facts(record),
        list(gold) if isinstance(gold, dict) else [],
    )


def parse_evidence(record: dict):
    """FinQA questions with retrieved facts, table and program, but without the page's text."""
    text = " ".join(record["facts"]) + str(record["table"])
    try:
        number = parse_number(execute_program(record.get("program") or "", record["table"]))
    except ValueError:
        number = float("nan")
    yield Example(record["question"], Page(text_id(str(record["table"])), text), " ".join(record["facts"]), number)


def finqa_number(answer: object, exe_ans: object = None) -> float:
    """The numeric label of a FinQA record, in the unit of this module.

    FinQA's ``answer`` (typed by an annotator) and ``exe_ans`` (the program's result) can differ by rounding, by a factor
    of 100 for percentages, or altogether. Where they agree up to those, the unrounded ``exe_ans`` wins; where they
    contradict each other, the annotator does, as the question was answered from the page and not from the program.
    """
    written, executed = in_page_unit(answer), parse_number(exe_ans)
    if math.isnan(written):
        # yes/no stays without a number even where a program compares figures
        return math.nan if str(answer).strip().lower() in ("yes", "no") else executed
    for candidate in (executed, executed / 100):
        if agree(written, candidate):
            return candidate
    return written


# --- FinQA's programs (Chen et al. 2021, section 3.2): "subtract(5829, 5735), divide(#0, 5735)" ---------------------

_STEP = re.compile(r"(\w+)\(([^()]*)\)")


def execute_program(program: str, table: list[list[str]]) -> float | str:
    """Run a FinQA program over its page's ``table``: a float, or "yes"/"no" for ``greater``.

    Arguments are numbers (percentages as fractions), ``const_100`` constants, ``#k`` (the k-th step's result) or, for
    the ``table_*`` operations, a row's name. Raises ``ValueError`` for anything else.
    """
    results: list[float | str] = []

    def number(argument: str) -> float:
        argument = argument.strip()
        if argument.startswith("#"):
            return results[int(argument[1:])]
        if argument.startswith("const_"):
            return -1.0 if argument == "const_m1" else float(argument[len("const_") :])
        value = parse_number(argument)
        if math.isnan(value):
            raise ValueError(f"program {program!r}: {argument!r} is no number")
        return value

    steps = _STEP.findall(program)
    if not steps:
        raise ValueError(f"program {program!r} has no step")
    for operation, arguments in steps:
        # Row names may hold commas, so table operations keep everything before the closing ", none".
        if operation.startswith("table_"):
            row = arguments.rsplit(",", 1)[0].strip()
            results.append(_table_operation(operation, row, table, program))
            continue
        a, b = (number(part) for part in arguments.split(",", 1))
        try:
            results.append(
                {
                    "add": lambda: a + b,
                    "subtract": lambda: a - b,
                    "multiply": lambda: a * b,
                    "divide": lambda: a / b,
                    "exp": lambda: a**b,
                    "greater": lambda: "yes" if a > b else "no",
                }[operation]()
            )
        except KeyError:
            raise ValueError(f"program {program!r}: unknown operation {operation!r}") from None
        except (ZeroDivisionError, OverflowError, TypeError) as error:
            raise ValueError(f"program {program!r}: {error}") from None
    return results[-1]


def _table_operation(operation: str, row_name: str, table: list[list[str]], program: str) -> float:
    for row in table:
        if row and row[0].strip() == row_name:
            values = [value for value in map(parse_number, row[1:]) if not math.isnan(value)]
            if values:
                reduce = {"table_sum": sum, "table_max": max, "table_min": min, "table_average": np.mean}.get(operation)
                if reduce is None:
                    raise ValueError(f"program {program!r}: unknown operation {operation!r}")
                return float(reduce(values))
    raise ValueError(f"program {program!r}: the table has no row {row_name!r} with numbers")
