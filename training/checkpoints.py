"""The trainer's checkpoints: which of them can be resumed from.

Training itself is `sentence_transformers.SentenceTransformerTrainer` as it stands: the numeric heads are the model's, so
every checkpoint holds them, a resumed run goes on with them and ``load_best_model_at_end`` brings them back.
"""

import re
from pathlib import Path


def last_complete_checkpoint(run_dir: str) -> str | None:
    """The newest checkpoint of ``run_dir`` that was written to its end, or None.

    ``trainer_state.json`` is the last file that the trainer writes; a checkpoint without it was cut off in mid-save.
    """
    found = []
    for path in Path(run_dir).glob("checkpoint-*"):
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if match and (path / "trainer_state.json").is_file():
            found.append((int(match[1]), str(path)))
    return max(found)[1] if found else None
