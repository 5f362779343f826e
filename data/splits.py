"""Training and evaluation sources, loaded and kept apart: what a run trains on and what it is measured on."""

import hashlib
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass

from .decontamination import Decontamination
from .loading import EMBEDDED_SAMPLE, load_source
from .reading import is_local
from .schema import DataError, Example, Page, Source, text_id

_log = logging.getLogger(__name__)


def half_of(page_id: str) -> str:
    """``"choosing"`` or ``"reported"``: the half of an evaluation set that a page and its questions belong to.

    Settings are chosen on one half and reported on the other. The first byte of the page id's SHA-256 decides, even for
    choosing, so that a page keeps its half in every set, order and version.
    """
    return "reported" if hashlib.sha256(page_id.encode()).digest()[0] % 2 else "choosing"


@dataclass
class FinancialData:
    """The training side as examples, each evaluation source apart, and how many examples were dropped and why.

    ``corpus`` holds the pages of the sources given as ``corpus`` once, which are searched beside an evaluation source's
    own; ``hashes`` the SHA-256 of each source; ``decontamination`` what the training side was checked against.
    """

    train: list[Example]
    evaluation: dict[str, Source]
    corpus: list[Page]
    dropped: dict[str, int]
    hashes: dict[str, str]
    decontamination: Decontamination

    @property
    def eval_examples(self) -> list[Example]:
        return [example for source in self.evaluation.values() for example in source.examples]


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
        DataError: see `load_source`; also when nothing remains to train or to evaluate on, or no answer to train on is
            a number.
    """
    training = [load_source(name, "train", skip_invalid) for name in data]
    if eval_data:
        evaluation = [load_source(name, hub_eval_split, skip_invalid) for name in eval_data]
    else:
        split = [name == EMBEDDED_SAMPLE or not is_local(name) for name in data]
        evaluation = [
            load_source(_without_split(name), hub_eval_split, skip_invalid) for name, own in zip(data, split) if own
        ]
        for position, source in enumerate(training):
            if not split[position]:
                held, training[position] = _hold_out(source, holdout)
                evaluation.append(held)
    extra = [load_source(name, "train", skip_invalid) for name in corpus or []]
    eval_examples = [example for source in evaluation for example in source.examples]
    if not eval_examples:
        raise DataError(
            f"{', '.join(eval_data or data)}: no question to evaluate on; name a labelled file with --eval_data"
        )
    decontamination = Decontamination.of(eval_examples)
    for source in training:
        for example in source.examples:
            example.kind = source.schema.split("_")[0]
    train, dropped = _separated(training, decontamination)
    if not train:
        raise DataError(f"{', '.join(data)}: nothing left to train on ({_counts(dropped)} dropped); give other --data")
    if not any(math.isfinite(example.number) for example in train):
        raise DataError(
            f"{', '.join(data)}: none of {len(train)} answers is a number, nothing to train the numeric heads on; "
            "check the fields answer, answers and exe_ans, or add a source that has numbers"
        )
    return FinancialData(
        train, {source.name: source for source in evaluation}, _all_pages(extra), dropped,
        {source.name: source.sha256 for source in [*training, *evaluation, *extra]}, decontamination,
    )  # fmt: skip


def _without_split(name: str) -> str:
    return name.split(":")[0]


def _separated(training: list[Source], decontamination: Decontamination) -> tuple[list[Example], dict[str, int]]:
    """The examples of all sources once each that the evaluation side leaves, and how many were dropped by reason."""
    dropped, train = {"question": 0, "page": 0, "text": 0, "duplicate": 0}, []
    seen: set[tuple[str, str]] = set()
    for example in (example for source in training for example in source.examples):
        key = (example.question, example.page.page_id)
        if key in seen:
            dropped["duplicate"] += 1
            continue
        seen.add(key)
        reason = decontamination.reason(example)
        if reason:
            dropped[reason] += 1
        else:
            train.append(example)
    return train, dropped


def _all_pages(sources: Iterable[Source]) -> list[Page]:
    """Every page of all sources, as the first source has it; an id that two sources give to unlike texts is two
    pages."""
    pages: dict[str, Page] = {}
    apart = 0
    for page in (page for source in sources for page in source.pages.values()):
        known = pages.setdefault(page.page_id, page)
        if known.text != page.text and not Decontamination.of([], [known]).leaks(page.text):
            own = Page(f"{page.page_id.split('#')[0]}#{text_id(page.text)[:8]}", page.text, page.company, page.year)
            apart += own.page_id not in pages
            pages.setdefault(own.page_id, own)
    if apart:
        _log.warning("%d pages have the id of another source's page with another text: each is kept as its own", apart)
    return list(pages.values())


def _counts(dropped: dict[str, int]) -> str:
    return ", ".join(f"{count} by {reason}" for reason, count in dropped.items() if count) or "none"


def _hold_out(source: Source, share: float) -> tuple[Source, Source]:
    """(held out, kept) of a source, by company (by page where none is known): a stable hash decides, not an order."""

    def held(page: Page) -> bool:
        digest = hashlib.sha256((page.company or page.page_id).encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64 < share

    def part(wanted: bool) -> Source:
        examples = [example for example in source.examples if held(example.page) == wanted]
        pages = {key: page for key, page in source.pages.items() if held(page) == wanted}
        return Source(source.name, source.schema, examples, pages, source.sha256, source.skipped)

    return part(True), part(False)
