"""The groups of arguments that ``train_st.py`` takes, as flags or in a recipe (training/recipe.py).

What ``--help`` shows, so nothing here needs torch: training/trainer_arguments.py joins `TrainingArguments` with
sentence-transformers' own.
"""

from dataclasses import dataclass, field

PAGES = "pages"


class ArgumentError(ValueError):
    """An argument that cannot work; the message names the field, what is wrong and what to do."""


@dataclass
class ModelArguments:
    """What is trained: the backbone, its reading length and its heads."""

    backbone: str = field(
        default="nomic-ai/nomic-embed-text-v1.5",
        metadata={
            "help": "Hub id or folder: a BERT, NomicBert, ModernBERT or MPNet encoder; 'minilm', 'mpnet': packaged."
        },
    )
    base: str | None = field(
        default=None, metadata={"help": "The untouched encoder to compare with, where --backbone is a trained folder."}
    )
    matryoshka_dims: list[int] = field(
        default_factory=lambda: [256, 128, 64],
        metadata={"help": "Strictly decreasing embedding widths; the first is the projection's."},
    )
    max_seq_length: int | None = field(
        default=None,
        metadata={
            "help": "Tokens read of a text; beyond the backbone's positions these are extended. Default: the "
            "backbone's."
        },
    )
    strip_punctuation: bool = field(
        default=False,
        metadata={
            "help": "The saved tokenizer leaves out square brackets, quotes, and commas and full stops outside figures."
        },
    )
    backbone_dropout: float = field(default=0.0, metadata={"help": "The backbone's dropout while training."})
    projection_init: str = field(
        default="pca",
        metadata={"help": "Where the projection starts: 'pca' of base embeddings, or 'identity' (a slice)."},
    )
    query_prompt: str | None = field(
        default=None, metadata={"help": "Text before a query. Default: nomic's, else none."}
    )
    document_prompt: str | None = field(default=None, metadata={"help": "Text before a page, likewise."})
    attn_implementation: str = field(default="sdpa", metadata={"help": "'sdpa' or 'eager' attention while training."})


@dataclass
class DataArguments:
    """What it is trained and measured on."""

    data: list[str] = field(
        default_factory=lambda: ["dreamerdeo/finqa"],
        metadata={
            "help": "Training sources: Hub ids and local FinQA or TAT-QA files, several at once; 'sample' is generated."
        },
    )
    eval_data: list[str] | None = field(
        default=None,
        metadata={"help": "Evaluation sources. Default: of Hub sets the validation split, of local files --holdout."},
    )
    corpus: list[str] | None = field(
        default=None, metadata={"help": "Unlabelled pages (JSONL with 'text') that are searched too."}
    )
    synthesize: list[str] | None = field(
        default=None, metadata={"help": "Unlabelled pages to make training questions from (docs/synthesis.md)."}
    )
    synthetic_pairs: int = field(default=10000, metadata={"help": "How many synthetic (question, page) pairs."})
    fresh_pairs: int = field(
        default=2000,
        metadata={"help": "Synthetic pairs from pages set aside for a projection's refit, beside the labelled ones."},
    )
    page_words: int | None = field(
        default=None,
        metadata={"help": "Train on a window of so many words of each page, around the evidence where known."},
    )
    fact_pairs: int = field(
        default=0,
        metadata={"help": "Also train on so many (question, facts) pairs with their numbers, labelled and synthetic."},
    )
    passage_pairs: int = field(
        default=0,
        metadata={"help": "Also train on so many short passages, taught by --passage_teacher (training/passages.py)."},
    )
    hard_negatives: bool = field(
        default=False,
        metadata={
            "help": "Add to each pair the wrong page that the starting model ranks highest "
            "(training/hard_negatives.py)."
        },
    )
    mix_sources: bool = field(
        default=False, metadata={"help": "Batches hold pages of FinQA and TAT-QA together, not of one kind each."}
    )
    labelled_repeats: int = field(default=1, metadata={"help": "How often an epoch repeats the labelled pairs."})
    questions_per_page: int = field(
        default=8, metadata={"help": "A page is encoded once a step with up to so many of its questions."}
    )
    concept_pairs: list[str] | None = field(
        default=None,
        metadata={"help": "FILE N: also train on N pairs of names of one concept (training/concepts.py)."},
    )
    skip_invalid: bool = field(default=False, metadata={"help": "Leave out records without question or page."})
    beside: list[str] | None = field(
        default=None, metadata={"help": "Models whose nDCG@10 stands beside the run's own in the closing table."}
    )
    holdout: float = field(
        default=0.1,
        metadata={
            "help": "Share of the companies of local files (of pages where none is known) held out without --eval_data."
        },
    )


@dataclass
class TrainingArguments:
    """How it is trained: the loss's arguments, and this project's defaults of sentence-transformers' own."""

    output_dir: str = field(
        default="finmatryoshka-model", metadata={"help": "The folder to write when training is done."}
    )
    learning_rate: float = field(default=5e-5, metadata={"help": "Peak learning rate of AdamW."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Pages per step and process."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the training data."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Steps of warm-up, or their share where below 1."})
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's weight decay."})
    batch_sampler: str = field(
        default=PAGES, metadata={"help": "Fixed: no page twice in a batch (training/batches.py); see --siblings."}
    )
    siblings: float = field(
        default=0.0,
        metadata={"help": "Chance that a page in a batch is followed by another of its company, 0 (shuffled) to 1."},
    )
    tokens_per_forward: int | None = field(
        default=None,
        metadata={
            "help": "Padded tokens forwarded at a time; 0: no limit. Default: 2048 on the CPU, no limit on CUDA."
        },
    )
    save_strategy: str = field(default="no", metadata={"help": "'steps' writes checkpoints below OUTPUT_DIR.run."})
    logging_steps: float = field(default=0.1, metadata={"help": "Steps between log lines, or their share."})
    report_to: str = field(default="none", metadata={"help": "Where else to log."})
    temperature: float = field(default=0.05, metadata={"help": "Of the ranking softmax."})
    numeric_weight: float = field(default=0.1, metadata={"help": "Weight of the numeric loss beside the ranking loss."})
    numeric_learning_rate: float = field(
        default=1e-3, metadata={"help": "Peak learning rate of the numeric heads, which start from nothing."}
    )
    matryoshka_weights: list[float] | None = field(default=None, metadata={"help": "One per dimension, largest first."})
    keep_tokens: float = field(
        default=1.0,
        metadata={"help": "Share of a page's tokens that a step reads, drawn anew each time, at their own positions."},
    )
    teacher: list[str] | None = field(
        default=None,
        metadata={"help": "SentenceTransformers whose in-batch similarities are learned; several are averaged."},
    )
    passage_teacher: list[str] | None = field(
        default=None,
        metadata={"help": "As --teacher, of --passage_pairs alone. Default: the untouched backbone."},
    )
    teacher_weight: float = field(
        default=0.7, metadata={"help": "Share of the teachers' KL divergence in the ranking loss, 0 to 1."}
    )
    teacher_temperature: float = field(default=0.03, metadata={"help": "Of the softmax that the divergence compares."})
    anchor_weight: float = field(
        default=0.0,
        metadata={
            "help": "Share of the distance from the stage's start in the ranking loss, 0 to 1: so firmly its vectors "
            "of questions and pages stay where they are."
        },
    )
    mini_batch_size: int | None = field(
        default=None, metadata={"help": "GradCache: texts per forward, for batches that do not fit in memory."}
    )
    precision: str | None = field(
        default=None,
        metadata={"help": "fp16, bf16 or fp32. Default: fp16 on CUDA, bf16 where the CPU has it, else fp32."},
    )
    dataloader_num_workers: int | None = field(
        default=None,
        metadata={"help": "Processes that make batches ready. Default: none on the CPU, up to 4 on CUDA."},
    )
    overwrite: bool = field(default=False, metadata={"help": "Replace OUTPUT_DIR (when the new folder is complete)."})
    keep_checkpoints: bool = field(default=False, metadata={"help": "Keep OUTPUT_DIR.run after the folder is written."})
    skip_evaluation: bool = field(default=False, metadata={"help": "Write the folder without the closing table."})


@dataclass
class StageArguments:
    """What a stage of a recipe does, beside training: averages weights, refits what stands on the backbone."""

    operation: str = field(
        default="train",
        metadata={"help": "'train', 'average' or 'refit'; a recipe lists several under `stages` (docs/training.md)."},
    )
    folders: list[str] | None = field(
        default=None,
        metadata={"help": "average: trained folders that join the stage before, every one with equal weight."},
    )
    earlier: list[int] | None = field(
        default=None,
        metadata={"help": "average: numbers of earlier stages of the recipe (from 1) that join likewise."},
    )
    base_share: float = field(
        default=0.0, metadata={"help": "average: share of the untouched backbone's weights in the result (WiSE-FT)."}
    )
    projection: bool = field(
        default=True,
        metadata={"help": "refit: the projection, on the finished backbone's vectors (training/refit.py)."},
    )
    heads: bool = field(default=True, metadata={"help": "refit: the numeric heads, on the finished embeddings."})
