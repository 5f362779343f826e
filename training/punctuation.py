"""A tokenizer that reads no punctuation that says nothing: what `str(table)` and tokenised prose put between words and
figures, a sixth of a FinQA page's tokens and a third of a TAT-QA page's."""

from tokenizers import Regex
from tokenizers.normalizers import Replace, Sequence
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

# Square brackets and quotes; commas and full stops outside of figures. No digit, sign, per cent or currency mark,
# and no round bracket: "(12)" is a negative figure.
_SILENT = Replace(Regex("[\\[\\]'\"`\u2018\u2019\u201c\u201d]|(?<!\\d),|,(?!\\d)|\\.(?!\\d)"), " ")


def without_punctuation(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """``tokenizer`` with a normaliser before its own that leaves silent punctuation out; one that has it, as it is.

    The normaliser stands in ``tokenizer.json``, so that every client that reads this file does the same. Its class
    becomes the general one: transformers' own BertTokenizer would set up BERT's normaliser in its place.
    """
    own = tokenizer.backend_tokenizer.normalizer
    if isinstance(own, Sequence) and repr(own[0]) == repr(_SILENT):
        return tokenizer
    tokenizer.backend_tokenizer.normalizer = Sequence([_SILENT, *([own] if own else [])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        **tokenizer.special_tokens_map,
    )
