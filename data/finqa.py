"""FinQA's schema (Chen et al. 2021), nested, flat as on the Hub, as evidence alone, or in ConvFinQA's records."""

import math
import re

from . import fields
from .evidence import derived_evidence, named_evidence
from .numbers import agree, in_page_unit, parse_number
from .programs import execute_program
from .schema import Example, Page, RecordError, text_id


def page_text(record: dict) -> str:
    """A FinQA page as MTEB's FinQARetrieval writes it."""
    before, table, after = _parts(record)
    return " ".join(before) + str(table) + " ".join(after)


def page_facts(record: dict) -> dict[str, str]:
    """A FinQA page's sentences (``text_i``) and linearised rows (``table_i``), numbered as ``gold_inds`` numbers
    them."""
    before, table, after = _parts(record)
    facts = {f"text_{i}": sentence for i, sentence in enumerate(before + after)}
    return facts | {f"table_{i}": linearise_row(table, i) for i in range(len(table))}


def _parts(record: dict) -> tuple[list[str], list[list[str]], list[str]]:
    before, after = (fields.texts(record.get(name), name) for name in ("pre_text", "post_text"))
    return before, fields.table(record.get("table")), after


def linearise_row(table: list[list[str]], row: int) -> str:
    """A table row as FinQA writes it in ``gold_inds``: "the net sales of 2015 is 5735 ; the net sales of ...".

    The header's first cell, where it has one, goes before ("in millions the net sales of ...").
    """
    header, cells = table[0], table[row]
    name = cells[0] if cells else ""
    columns = " ; ".join(f"the {name} of {column} is {cell}" for column, cell in zip(header[1:], cells[1:]))
    return f"{header[0]} {columns} ;".lstrip() if header else f"{columns} ;"


def parse_finqa(record: dict):
    """One example a question. Raises `RecordError` naming the field that is missing or of a wrong kind."""
    before, table, after = _parts(record)
    if not table and not any(sentence.strip() for sentence in before + after):
        raise RecordError("page")
    text, facts = page_text(record), page_facts(record)
    filename = str(record.get("filename") or "") or str(record.get("id") or "").rsplit("-", 1)[0]
    parts = filename.split("/")
    company, year = (parts[0], fields.year(parts[1])) if len(parts) == 3 else ("", None)
    page = Page(filename or text_id(text), text, company, year, table)
    for qa in _questions(record):
        question = fields.text(qa.get("question"), "question")
        answer = next((qa[name] for name in ("answer", "answers") if qa.get(name) not in (None, "", [])), None)
        gold, evidence = named_evidence(qa.get("gold_inds") or qa.get("gold_evidence"), facts)
        derived = not evidence and _derived(qa.get("program"), question, facts, table)
        if derived:
            gold, evidence = derived, [facts[name] for name in derived]
        number = finqa_number(answer, qa.get("exe_ans", qa.get("final_result")))
        yield Example(
            question,
            page,
            " ".join(evidence) or text,
            number,
            facts,
            gold,
            bool(derived),
            evidence_known=bool(evidence),
        )


def _derived(program: object, question: str, facts: dict[str, str], table: list[list[str]]) -> list[str]:
    try:
        return derived_evidence(program, question, facts, table) if isinstance(program, str) else []
    except ValueError:
        return []


def _questions(record: dict) -> list[dict]:
    """The questions of a record: FinQA's one, ConvFinQA's two (``qa_0``, ``qa_1``) or the turns of its conversation."""
    if record.get("qa") is not None:
        return [fields.mapping(record["qa"], "qa")]
    numbered = sorted(name for name in record if re.fullmatch(r"qa_[0-9]+", name) and record[name] is not None)
    if numbered:
        return [fields.mapping(record[name], name) for name in numbered]
    return _turns(fields.mapping(record["annotation"], "annotation")) if record.get("annotation") else [record]


def _turns(annotation: dict) -> list[dict]:
    """ConvFinQA's turns (Chen et al. 2022): a turn is asked with all that was said before it."""
    if annotation.get("cur_dial"):
        said = fields.texts(annotation["cur_dial"], "cur_dial")
        gold = annotation.get("gold_ind")
        return [{"question": " ".join(said), "exe_ans": annotation.get("exe_ans"), "gold_inds": gold}]
    said = fields.texts(annotation.get("dialogue_break"), "dialogue_break")
    results = fields.parsed(annotation.get("exe_ans_list")) or []
    if not said or not isinstance(results, list):
        raise RecordError("annotation has no dialogue_break")
    results += [None] * (len(said) - len(results))
    return [{"question": " ".join(said[: i + 1]), "exe_ans": results[i]} for i in range(len(said))]


def parse_evidence(record: dict):
    """FinQA questions with retrieved facts, table and program, but without the page's text."""
    table = fields.table(record.get("table"))
    facts = fields.texts(record.get("facts"), "facts")
    evidence = " ".join(facts)
    try:
        number = parse_number(execute_program(str(record.get("program") or ""), table))
    except ValueError:
        number = math.nan
    text = evidence + str(table)
    page = Page(text_id(text), text)
    yield Example(fields.text(record.get("question"), "question"), page, evidence, number)


def finqa_number(answer: object, exe_ans: object = None) -> float:
    """The numeric label of a FinQA record, in the unit of `data.numbers`.

    FinQA's ``answer`` (typed by an annotator) and ``exe_ans`` (the program's result) can differ by rounding, by a
    factor of 100 for percentages, or altogether. Where they agree up to those, the unrounded ``exe_ans`` wins; where
    they contradict each other, the annotator does, as the question was answered from the page and not from the program.
    """
    written, executed = in_page_unit(answer), parse_number(exe_ans)
    if math.isnan(written):
        # yes/no stays without a number even where a program compares figures
        return math.nan if str(answer).strip().lower() in ("yes", "no") else executed
    for candidate in (executed, executed / 100):
        if agree(written, candidate):
            return candidate
    return written
