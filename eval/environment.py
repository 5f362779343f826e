"""Which machine and versions a figure was measured with, for every results file; and the memory of this process."""

import ctypes
import gc
import importlib.metadata
import os
import platform
from collections.abc import Callable
from pathlib import Path

import psutil
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


def release_memory() -> None:
    """Give back what nobody holds any more: to the GPU, and to the system, as glibc keeps freed pages unless asked."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except OSError:  # another C library
        pass


def peak_memory(call: Callable) -> int | None:
    """Bytes that ``call`` takes at its peak beyond what is held before; None where nobody tells (no GPU, no Linux)."""
    release_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    before, reset = psutil.Process().memory_info().rss, Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")  # sets the peak back to what is resident now (proc(5))
    except OSError:
        return None
    call()
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 - before
