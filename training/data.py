"""FinQA and TAT-QA into one table of (question, page, fact, number): loading, checking, splitting by page.

Sources are Hub dataset ids or local ``.json``/``.jsonl``/``.gz`` files; the schema of each is detected. What is on the
evaluation side, question or page or a 13-word run of a page, never reaches the training side.
"""

import gzip
import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from datasets import Dataset, DatasetDict, Features, Value

from .numbers import execute_program, finqa_number, parse_number, tatqa_number
from .sample import generate_finqa, linearise_row

EMBEDDED_SAMPLE = "sample"
# GPT-3 (Brown et al. 2020, appendix C) calls a document contaminated that shares a run of 13 words.
SHINGLE_WORDS = 13


class DataError(ValueError):
    """Wrong input data; the message names the source, what is wrong and what to do."""


@dataclass
class Page:
    """A page to search: its text as MTEB's FinQARetrieval writes it, and where it comes from."""

    page_id: str
    text: str
    company: str = ""
    year: int | None = None


@dataclass
class Example:
    """One question with its page.

    ``fact`` is the evidence's text (gold facts, or the page where the record names none), ``number`` the answer in the
    unit of `training.numbers` (NaN where it is none), ``facts`` all that the page offers by id, ``gold`` the ids among
    them that FinQA's ``gold_inds`` names.
    """

    question: str
    page: Page
    fact: str
    number: float
    facts: dict[str, str] = field(default_factory=dict, repr=False)
    gold: list[str] = field(default_factory=list)

    @property
    def numeric(self) -> str:
        """What the numeric heads read."""
        return numeric_text(self.question, self.fact)


@dataclass
class Source:
    """What one file or Hub dataset gave: labelled examples and all pages, labelled or not."""

    name: str
    schema: str
    examples: list[Example]
    pages: dict[str, Page]
    sha256: str
    skipped: int = 0


def numeric_text(question: str, context: str) -> str:
    """The text that a numeric head reads, after retrieval: question and evidence."""
    return f"Question: {question} Context: {context}"


# --- reading --------------------------------------------------------------------------------------------------------


def read_records(source: str) -> list[dict]:
    """The raw records of a local JSON, JSONL or gzipped file. Raises `DataError` in one line."""
    path = Path(source)
    try:
        opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")
        with opened as file:
            text = file.read()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise DataError(f"{source}: is not UTF-8 text; give a JSON or JSONL file") from None
    try:
        if text.lstrip().startswith("["):
            return json.loads(text)
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        raise DataError(f"{source}: is no JSON or JSONL (line {error.lineno}: {error.msg})") from None


def load_source(source: str, split: str = "train", skip_invalid: bool = False) -> Source:
    """Load a Hub dataset id, a local file, or ``"sample"`` (the embedded one; ``split`` picks its companies).

    Raises:
        DataError: unreadable, of no known schema, unreachable, or with invalid records while ``skip_invalid`` is off.
    """
    if source == EMBEDDED_SAMPLE:
        records = generate_finqa(20, first_company=400) if split != "train" else generate_finqa()
        digest = hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()
    elif os.path.exists(source):
        records = read_records(source)
        digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    elif source.endswith((".json", ".jsonl", ".gz")) or source.startswith((".", "/")):
        raise DataError(f"{source}: no such file")
    else:
        records, digest = _hub_records(source, split)
    return parse_records(records, source, digest, skip_invalid)


def _hub_records(source: str, split: str) -> tuple[list[dict], str]:
    from datasets import load_dataset

    try:
        dataset = load_dataset(source, split=split)
    except Exception as error:  # the Hub client's errors have no common base
        raise DataError(
            f"{source}: neither a local file nor loadable from the Hub ({type(error).__name__}); check the name and the "
            "network, or give local files with --data"
        ) from None
    return list(dataset), dataset._fingerprint


def detect_schema(record: dict) -> str | None:
    """``finqa`` | ``finqa_flat`` | ``finqa_evidence`` | ``tatqa`` | ``financebench`` | ``corpus``, or None."""
    keys = set(record) if isinstance(record, dict) else set()
    if {"qa", "pre_text"} <= keys or {"qa", "table"} <= keys:
        return "finqa"
    if {"questions", "paragraphs", "table"} <= keys:
        return "tatqa"
    if {"question", "pre_text", "table"} <= keys:
        return "finqa_flat"  # one level, as Hub viewers need it
    if {"question", "facts", "table"} <= keys:
        return "finqa_evidence"
    if {"question", "evidence"} <= keys:
        return "financebench"
    return "corpus" if "text" in keys else None


def parse_records(records: list[dict], name: str, digest: str = "", skip_invalid: bool = False) -> Source:
    """Turn raw records of one schema into a `Source`; see `load_source` for what is raised."""
    schema = detect_schema(records[0]) if records else None
    if schema is None:
        found = f"fields {', '.join(sorted(records[0])[:8])}" if records and isinstance(records[0], dict) else "no records"
        raise DataError(
            f"{name}: {found}; expected FinQA (pre_text, table, post_text, qa), TAT-QA (table, paragraphs, questions), "
            "FinanceBench (question, evidence) or a corpus (text)"
        )
    parse = {
        "finqa": _parse_finqa, "finqa_flat": _parse_finqa, "finqa_evidence": _parse_evidence, "tatqa": _parse_tatqa,
        "financebench": _parse_financebench, "corpus": _parse_corpus,
    }[schema]  # fmt: skip
    result, invalid = Source(name, schema, [], {}, digest), []
    for position, record in enumerate(records):
        try:
            for item in parse(record):
                page = item if isinstance(item, Page) else item.page
                if not page.text.strip():
                    raise KeyError("page")
                result.pages.setdefault(page.page_id, page)
                if isinstance(item, Example):
                    if not item.question.strip():
                        raise KeyError("question")
                    item.page = result.pages[page.page_id]
                    result.examples.append(item)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            invalid.append((_record_name(record, position), error.args[0] if error.args else type(error).__name__))
    if invalid and not skip_invalid:
        first, reason = invalid[0]
        raise DataError(
            f"{name}: {len(invalid)} of {len(records)} records lack a question or a page, the first is {first} "
            f"({reason}); mend them or pass --skip-invalid"
        )
    result.skipped = len(invalid)
    return result


def _record_name(record: object, position: int) -> str:
    identity = record.get("id") or record.get("uid") if isinstance(record, dict) else None
    return f"record {position}" + (f" ({identity})" if identity else "")


# --- schemas --------------------------------------------------------------------------------------------------------


def page_text(record: dict) -> str:
    """A FinQA page as MTEB's FinQARetrieval writes it."""
    return " ".join(record.get("pre_text") or []) + str(record["table"]) + " ".join(record.get("post_text") or [])


def page_facts(record: dict) -> dict[str, str]:
    """A FinQA page's sentences (``text_i``) and linearised rows (``table_i``), numbered as ``gold_inds`` numbers them."""
    sentences = list(record.get("pre_text") or []) + list(record.get("post_text") or [])
    facts = {f"text_{i}": sentence for i, sentence in enumerate(sentences)}
    table = record["table"]
    return facts | {f"table_{i}": linearise_row(table, i) for i in range(len(table))}


def _parse_finqa(record: dict):
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
        filename or _text_id(text), text, parts[0] if len(parts) == 3 else "",
        int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else None,
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


def _parse_evidence(record: dict):
    """FinQA questions with retrieved facts, table and program, but without the page's text."""
    text = " ".join(record["facts"]) + str(record["table"])
    try:
        number = parse_number(execute_program(record.get("program") or "", record["table"]))
    except ValueError:
        number = float("nan")
    yield Example(record["question"], Page(_text_id(str(record["table"])), text), " ".join(record["facts"]), number)


def _parse_tatqa(record: dict):
    table = record["table"]["table"]
    flat = _one_header(table)
    paragraphs = {str(part["order"]): part["text"] for part in record["paragraphs"]}
    page = Page(record["table"].get("uid") or _text_id(str(table)), str(table) + " ".join(paragraphs.values()))
    yield page
    for qa in record["questions"]:
        facts = [paragraphs[order] for order in map(str, qa.get("rel_paragraphs") or []) if order in paragraphs]
        if "table" in qa.get("answer_from", ""):
            facts = [linearise_row(flat, row) for row in _relevant_rows(qa, flat)] + facts
        yield Example(qa["question"], page, " ".join(facts) or page.text, tatqa_number(qa.get("answer"), qa.get("scale", "")))


def _one_header(table: list[list[str]]) -> list[list[str]]:
    """The table with its stacked header rows (those without a name in the first cell) joined into one."""
    depth = next((i for i, row in enumerate(table) if i and str(row[0]).strip()), 1)
    return [[" ".join(filter(None, map(str.strip, column))) for column in zip(*table[:depth])], *table[depth:]]


def _relevant_rows(qa: dict, table: list[list[str]]) -> list[int]:
    """Rows that hold a figure of the derivation or the answer, or failing that a word of the question."""
    answer = qa.get("answer")
    wanted = f"{qa.get('derivation', '')} {answer if isinstance(answer, (list, str)) else ''}"
    figures = set(re.findall(r"\d[\d,.]*\d|\d", wanted))
    rows = [i for i, row in enumerate(table) if i and any(figures & set(re.findall(r"\d[\d,.]*\d|\d", c)) for c in row[1:])]
    if not rows:
        words = set(re.findall(r"[a-z]{4,}", qa["question"].lower()))
        rows = [i for i, row in enumerate(table) if i and words & set(re.findall(r"[a-z]{4,}", str(row[0]).lower()))]
    return rows[:6]


def _parse_financebench(record: dict):
    evidence = [part["evidence_text"] for part in record["evidence"]]
    if not evidence:
        raise KeyError("evidence")
    document = record.get("doc_name", "")
    for text in evidence:
        page = Page(_text_id(document + text), text, record.get("company", ""))
        yield Example(record["question"], page, text, parse_number(record.get("answer")))


def _parse_corpus(record: dict):
    identity = "/".join(str(record[key]) for key in ("document", "page") if key in record)
    year = record.get("year")
    yield Page(identity or _text_id(record["text"]), record["text"], record.get("company", ""), int(year) if year else None)


def _text_id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- splitting ------------------------------------------------------------------------------------------------------


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def shingles(text: str, width: int = SHINGLE_WORDS) -> set[str]:
    """All runs of ``width`` words (letters and digits, lower case) of a text."""
    words = words_of(text)
    return {" ".join(words[i : i + width]) for i in range(len(words) - width + 1)}


@dataclass
class Separation:
    """What may not reach the training side: questions, page ids, facts and word runs of the evaluation pages."""

    questions: set[str]
    page_ids: set[str]
    runs: set[str]

    @classmethod
    def of(cls, examples: list[Example], pages: list[Page] = ()) -> "Separation":
        pages = {page.page_id: page for page in [*pages, *(example.page for example in examples)]}
        runs = set().union(*(shingles(page.text) for page in pages.values())) if pages else set()
        return cls({" ".join(words_of(example.question)) for example in examples}, set(pages), runs)

    def leaks(self, text: str) -> bool:
        return not self.runs.isdisjoint(shingles(text))

    def reason(self, example: Example) -> str | None:
        """Why an example must stay out of training, or None."""
        if " ".join(words_of(example.question)) in self.questions:
            return "question"
        if example.page.page_id in self.page_ids:
            return "page"
        return "text" if self.leaks(example.page.text) or self.leaks(example.fact) else None


@dataclass
class FinancialData:
    """The training side as examples, each evaluation source apart, and how many examples were dropped and why."""

    train: list[Example]
    evaluation: dict[str, Source]
    corpus: list[Page]
    dropped: dict[str, int]
    hashes: dict[str, str]

    @property
    def eval_examples(self) -> list[Example]:
        return [example for source in self.evaluation.values() for example in source.examples]

    @property
    def separation(self) -> Separation:
        return Separation.of(self.eval_examples)

    def dataset_dict(self) -> DatasetDict:
        """``train`` and ``evaluation`` as `datasets` tables; see `to_dataset` for the columns."""
        return DatasetDict({"train": to_dataset(self.train), "evaluation": to_dataset(self.eval_examples)})


def to_dataset(examples: list[Example]) -> Dataset:
    """Columns: question, page, fact, numeric, number (float, NaN: none), page_id, company, year."""
    features = Features(
        {name: Value("string") for name in ("question", "page", "fact", "numeric", "page_id", "company")}
        | {"number": Value("float64"), "year": Value("int32")}
    )
    rows = [
        {
            "question": example.question, "page": example.page.text, "fact": example.fact, "numeric": example.numeric,
            "number": example.number, **{key: value for key, value in asdict(example.page).items() if key != "text"},
        }
        for example in examples
    ]  # fmt: skip
    return Dataset.from_list(rows, features=features)


def load_data(
    data: list[str], eval_data: list[str] | None = None, corpus: list[str] | None = None, skip_invalid: bool = False,
    holdout: float = 0.1, hub_eval_split: str = "validation",
) -> FinancialData:  # fmt: skip
    """Load training and evaluation sources and separate them.

    Args:
        data: Sources to train on.
        eval_data: Sources to evaluate on. Without them, a Hub dataset gives its ``hub_eval_split``, the embedded sample
            its other companies, and of local files ``holdout`` of the pages (whole companies where they are known).
        corpus: Unlabelled sources (``text``) that join the pages searched.
        skip_invalid: Leave out records without question or page instead of failing.

    Raises:
        DataError: see `load_source`; also when nothing remains to train or to evaluate on.
    """
    training = [load_source(name, "train", skip_invalid) for name in data]
    if eval_data:
        evaluation = [load_source(name, hub_eval_split, skip_invalid) for name in eval_data]
    else:
        splittable = [name for name in data if name == EMBEDDED_SAMPLE or not os.path.exists(name)]
        evaluation = [load_source(name, hub_eval_split, skip_invalid) for name in splittable]
        if not evaluation:
            evaluation, training = _hold_out(training, holdout)
    extra = [load_source(name, "train", skip_invalid) for name in corpus or []]
    eval_examples = [example for source in evaluation for example in source.examples]
    if not eval_examples:
        raise DataError(f"{', '.join(eval_data or data)}: no question to evaluate on; name a labelled file with --eval_data")
    separation = Separation.of(eval_examples)
    dropped, train = {"question": 0, "page": 0, "text": 0, "duplicate": 0}, []
    seen, verdicts = set(), {}
    for source in training:
        for example in source.examples:
            key = (example.question, example.page.page_id)
            if key in seen:
                dropped["duplicate"] += 1
                continue
            seen.add(key)
            # A page's shingles are the dear part: judged once a page, its facts being part of it.
            if example.page.page_id not in verdicts:
                verdicts[example.page.page_id] = separation.leaks(example.page.text)
            reason = separation.reason(example) if not verdicts[example.page.page_id] else "text"
            if reason:
                dropped[reason] += 1
            else:
                train.append(example)
    if not train:
        raise DataError(f"{', '.join(data)}: nothing left to train on ({_counts(dropped)} dropped); give other --data")
    pages = {page.page_id: page for source in [*training, *evaluation, *extra] for page in source.pages.values()}
    return FinancialData(
        train, {source.name: source for source in evaluation}, list(pages.values()), dropped,
        {source.name: source.sha256 for source in [*training, *evaluation, *extra]},
    )  # fmt: skip


def _counts(dropped: dict[str, int]) -> str:
    return ", ".join(f"{count} by {reason}" for reason, count in dropped.items() if count) or "none"


def _hold_out(sources: list[Source], share: float) -> tuple[list[Source], list[Source]]:
    """Split local sources by company (by page where none is known): a stable hash decides, not an order."""

    def held(page: Page) -> bool:
        digest = hashlib.sha256((page.company or page.page_id).encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64 < share

    def part(source: Source, wanted: bool) -> Source:
        examples = [example for example in source.examples if held(example.page) == wanted]
        pages = {key: page for key, page in source.pages.items() if held(page) == wanted}
        return Source(source.name, source.schema, examples, pages, source.sha256, source.skipped)

    return [part(source, True) for source in sources], [part(source, False) for source in sources]
