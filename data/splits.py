"""Training and evaluation sources, loaded and kept apart: what a run trains on and what it is measured on."""

import hashlib
import os
from dataclasses import dataclass

from .decontamination import Decontamination
from .loading import EMBEDDED_SAMPLE, load_source
from .schema import DataError, Example, Page, Source


@dataclass
class FinancialData:
    """The training side as examples, each evaluation source apart, and how many examples were dropped and why.

    ``corpus`` are the pages of the sources given as ``corpus`` alone, which are searched beside an evaluation source's own.
    """

    train: list[Example]
    evaluation: dict[str, Source]
    corpus: list[Page]
    dropped: dict[str, int]
    hashes: dict[str, str]

    @property
    def eval_examples(self) -> list[Example]:
        return [example for source in self.evaluation.values() for example in source.examples]

    @property
    def decontamination(self) -> Decontamination:
        return Decontamination.of(self.eval_examples)


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
        raise DataError(
            f"{', '.join(eval_data or data)}: no question to evaluate on; name a labelled file with --eval_data"
        )
    decontamination = Decontamination.of(eval_examples)
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
                verdicts[example.page.page_id] = decontamination.leaks(example.page.text)
            reason = decontamination.reason(example) if not verdicts[example.page.page_id] else "text"
            if reason:
                dropped[reason] += 1
            else:
                train.append(example)
    if not train:
        raise DataError(f"{', '.join(data)}: nothing left to train on ({_counts(dropped)} dropped); give other --data")
    pages = {page.page_id: page for source in extra for page in source.pages.values()}
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


def half_of(page_id: str) -> str:
    """``"choosing"`` or ``"reported"``: on which half of the development pages a page stands.

    Settings are chosen on the one half, figures reported on the other. The first byte of the sha256 of ``page_id`` decides:
    even is choosing, odd reported.
    """
    return "reported" if hashlib.sha256(page_id.encode()).digest()[0] % 2 else "choosing"
