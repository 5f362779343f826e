"""Which machine and versions a figure was measured with: goes into every results file."""

import importlib.metadata
import os
import platform

import torch

_PACKAGES = ("torch", "transformers", "sentence-transformers", "datasets", "accelerate", "numpy")


def describe_machine() -> dict:
    """``machine`` (kind, not name: processor features, cores, GPU) and ``versions``."""
    if torch.cuda.is_available():
        kind = torch.cuda.get_device_name(0)
    else:
        features = [name for name, has in (("AMX", torch.cpu._is_amx_tile_supported()),
                                           ("AVX512-BF16", torch.cpu._is_avx512_bf16_supported())) if has]  # fmt: skip
        kind = f"CPU {platform.machine()}, {os.cpu_count()} cores" + (f", {', '.join(features)}" if features else "")
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"machine": kind, "versions": {"python": platform.python_version(), **versions}}
