"""bm25s without JAX, which it would otherwise start as it is imported: JAX takes three quarters of a GPU's memory."""

import sys

# None in the place of a module makes its import fail, and bm25s then ranks with NumPy, on every machine alike.
_hidden = {name: sys.modules.get(name) for name in ("jax", "jax.lax")}
sys.modules.update(dict.fromkeys(_hidden))  # type: ignore[arg-type]
try:
    import bm25s
    from bm25s.stopwords import STOPWORDS_EN
finally:
    for _name, _module in _hidden.items():
        if _module is None:
            del sys.modules[_name]
        else:
            sys.modules[_name] = _module

__all__ = ["STOPWORDS_EN", "bm25s"]
