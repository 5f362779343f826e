"""A generated sample of annual-report pages in FinQA's schema: what the quickstart and the tests train on.

Every company, figure and sentence is made up here, from a seed. A company reports the same topics year after year, so
its neighbouring pages differ in their figures only, and a question names the line item, the company and the year:
finding the page needs all three. A report repeats the figures of the year before, so a question about one year alone
is answered by the next report too, and is labelled on both pages. Companies of the evaluation side never occur in
training.
"""

import random
from dataclasses import dataclass

from .finqa import execute_program, linearise_row

_FIRST = (
    "alder birch cobalt delmar elgin fairmont garnet harlow ironwood juniper kestrel larkspur merrick norwood oakhurst "
    "paxton quarry ridgeway sable thornton umber valmont westlake yarrow zephyr ashby brook calder dunmore ember"
).split()
_SECOND = (
    "foods energy logistics systems pharma airlines insurance bancorp materials retail networks motors properties "
    "utilities chemicals media semiconductors packaging railways health"
).split()
_SUFFIX = ("inc.", "corp.", "group", "holdings", "co.", "plc")

# topic: (title, subject of the table, unit, line items with their typical sizes, may be negative)
_TOPICS: dict[str, tuple[str, str, str, list[tuple[str, float]]]] = {
    "income": ("results of operations", "selected results", "millions",
               [("net sales", 5200), ("cost of products sold", 3100), ("selling expenses", 640),
                ("research costs", 310), ("operating income", 880), ("interest expense", 120),
                ("income before taxes", 720)]),
    "debt": ("long-term borrowings", "notes and loans outstanding", "thousands",
             [("senior notes", 450000), ("term loan", 210000), ("revolving credit facility", 95000),
              ("commercial paper", 60000), ("finance lease debt", 18000), ("total borrowings", 833000)]),
    "segment": ("segment information", "revenue by region", "millions",
                [("north america", 2100), ("europe", 1300), ("asia pacific", 900), ("latin america", 310),
                 ("middle east and africa", 140)]),
    "shares": ("share-based payment", "awards granted to employees", "thousands",
               [("options granted", 1450), ("options exercised", 820), ("options forfeited", 130),
                ("restricted units granted", 610), ("performance units vested", 205)]),
    "tax": ("income taxes", "components of the tax charge", "thousands",
            [("current federal taxes", 84000), ("current state taxes", 12500), ("foreign taxes", 31000),
             ("deferred taxes", -9800), ("unrecognised tax benefits", 22700)]),
    "pension": ("retirement benefits", "funded status of the pension plans", "millions",
                [("benefit obligation", 1340), ("fair value of plan assets", 1120), ("service cost", 38),
                 ("employer contributions", 75), ("actuarial loss", -46)]),
    "property": ("property and equipment", "carrying amounts of property", "thousands",
                 [("land", 52000), ("buildings", 318000), ("machinery", 702000), ("leasehold improvements", 64000),
                  ("accumulated depreciation", -410000)]),
    "cash": ("liquidity and cash flows", "sources and uses of cash", "billions",
             [("cash from operations", 3.4), ("capital expenditures", -1.2), ("dividends paid", -0.8),
              ("share repurchases", -0.9), ("acquisitions", -0.4)]),
}  # fmt: skip

# Every sentence names its company at both ends of its constant words, so that pages of two companies share no run of 13
# words: the evaluation side stays clear of the training side by the same rule as real data (`data.Decontamination`).
_PRE = (
    "{company} discusses its {title} for {year} .",
    "below , {company} lists {subject} , in {unit} .",
    "{company} reports that {item} came to {figure} against {figure_prior} in {prior} .",
    "{company} follows {item2} closely ; it stood at {figure2} .",
)
_POST = (
    "{company} expects {item} in {next} to depend on demand .",
    "{company} saw {item2} move from {figure2_prior} to {figure2} after a decision taken in {prior} .",
    "see note {note} of {company} .",
)

_QUESTIONS = (
    ("what was the percentage change in {item} of {company} from {prior} to {year}?",
     "subtract({a}, {b}), divide(#0, {b})"),
    ("by how much did {company} 's {item} change in {year}, in {unit}?", "subtract({a}, {b})"),
    ("what is the ratio of {item} to {item2} at {company} in {year}?", "divide({a}, {c})"),
    ("for {company}, what was the average {item} over {prior} and {year}, in {unit}?",
     "add({a}, {b}), divide(#0, const_2)"),
    ("what did {item} and {item2} of {company} add up to in {year}, in {unit}?", "add({a}, {c})"),
    ("was {item} of {company} greater than its {item2} in {year}?", "greater({a}, {c})"),
)  # fmt: skip


def generate_finqa(
    n_companies: int = 80, years: int = 3, topics_per_company: int = 3, questions_per_page: int = 3, seed: int = 13,
    first_company: int = 0,
) -> list[dict]:  # fmt: skip
    """FinQA records (``id``, ``filename``, ``pre_text``, ``post_text``, ``table``, ``qa``), one per question and page.

    Args:
        n_companies: Companies to report on; names are drawn without repetition.
        years: Consecutive reports of each company.
        topics_per_company: Pages of each report.
        questions_per_page: Questions that a page gives rise to; those about its year alone are asked of the next too.
        seed: The whole sample is a function of the arguments.
        first_company: Skip that many names, for a second sample that shares no company with the first.
    """
    names = [f"{first} {second} {suffix}" for first in _FIRST for second in _SECOND for suffix in _SUFFIX[:2]]
    random.Random(4711).shuffle(names)
    if first_company + n_companies > len(names):
        raise ValueError(f"generate_finqa: {first_company + n_companies} companies asked for, {len(names)} names known")
    rng = random.Random(f"{seed}-{first_company}")
    records = []
    for company in names[first_company : first_company + n_companies]:
        start = rng.randrange(2004, 2022 - years)
        for topic in rng.sample(sorted(_TOPICS), topics_per_company):
            figures = _figures(topic, years + 1, rng)
            repeated: list[_Question] = []
            for offset in range(years):
                page, words = _page(company, topic, start + offset + 1, figures, offset, rng)
                asked = _questions(page["table"], words, questions_per_page, rng)
                records += _records(page, asked, column=1) + _records(page, repeated, column=2, first=len(asked))
                repeated = [question for question in asked if "{b}" not in question.program]
    return records


def _figures(topic: str, years: int, rng: random.Random) -> dict[str, list[str]]:
    """Line item → one written figure a year: a random walk around the item's typical size."""
    figures = {}
    for item, size in _TOPICS[topic][3]:
        value, row = size * rng.uniform(0.3, 3.0), []
        for _ in range(years):
            value *= rng.uniform(0.78, 1.3)
            row.append(f"{value:.2f}" if abs(size) < 100 else f"{value:.0f}")
        figures[item] = row
    return figures


def _page(company, topic, year, figures, offset, rng) -> tuple[dict, dict]:
    """The page without questions, and the words that its sentences and questions are filled with."""
    title, subject, unit, _ = _TOPICS[topic]
    items = list(figures)
    item, item2 = items[0], items[1]
    words = {
        "company": company, "title": title, "subject": subject, "unit": unit, "year": year, "prior": year - 1,
        "next": year + 1, "note": rng.randrange(2, 24), "item": item, "item2": item2,
        "figure": figures[item][offset + 1], "figure_prior": figures[item][offset],
        "figure2": figures[item2][offset + 1], "figure2_prior": figures[item2][offset],
    }  # fmt: skip
    page = {
        "filename": f"{company.split()[0].upper()}_{company.split()[1].upper()}_{company.split()[2].strip('.').upper()}"
        f"/{year}/page_{sorted(_TOPICS).index(topic) + 1}.pdf",
        "pre_text": [sentence.format(**words) for sentence in _PRE],
        "post_text": [sentence.format(**words) for sentence in _POST],
        "table": [["", str(year), str(year - 1)], *([i, figures[i][offset + 1], figures[i][offset]] for i in items)],
    }
    return page, words


@dataclass
class _Question:
    """In words, and as a program over {a} (``row``, its year), {b} (the year before) and {c} (``row2``, its year)."""

    text: str
    program: str
    row: int
    row2: int


def _questions(table: list[list[str]], words: dict, count: int, rng: random.Random) -> list[_Question]:
    asked = []
    for text, program in rng.sample(_QUESTIONS, count):
        row, row2 = rng.sample(range(1, len(table)), 2)
        text = text.format(**words | {"item": table[row][0], "item2": table[row2][0]})
        asked.append(_Question(text, program, row, row2))
    return asked


def _records(page: dict, questions: list[_Question], column: int, first: int = 0) -> list[dict]:
    """FinQA records of ``questions``, whose year stands in ``column`` of the table; ids count on from ``first``."""
    table, records = page["table"], []
    for number, question in enumerate(questions, start=first + 1):
        figures = {"a": table[question.row][column], "c": table[question.row2][column], "b": table[question.row][-1]}
        program = question.program.format(**figures)
        result = execute_program(program, table)
        rows = [question.row, question.row2] if "{c}" in question.program else [question.row]
        records.append(
            page
            | {
                "id": f"{page['filename']}-{number}",
                "qa": {
                    "question": question.text,
                    "program": program,
                    "exe_ans": result if isinstance(result, str) else round(result, 5),
                    "answer": _written(result, question.text),
                    "gold_inds": {f"table_{i}": linearise_row(table, i) for i in rows},
                },
            }
        )
    return records


def _written(result: float | str, question: str) -> str:
    if isinstance(result, str):
        return result
    return f"{result * 100:.1f}%" if "percentage" in question else f"{result:.2f}"
