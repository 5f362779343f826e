"""How speed is measured: variants that take turns, their ratios to one of them, memory, share of the matrix peak.

Interleaved repeats, so that a busy machine slows all of them; medians with least and most, as one number says nothing.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from .environment import peak_memory


def interleave(variants: dict[str, Callable], repeats: int, warm_up: bool = True) -> dict[str, list[float]]:
    """Seconds of each variant, one repeat of all after another; a first round warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(0 if warm_up else 1, repeats + 1):
        for name, variant in variants.items():
            start = time.perf_counter()
            variant()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratios(seconds: dict[str, list[float]], reference: str) -> dict[str, tuple[float, float, float]]:
    """Speed-up over ``reference`` within each repeat: (median, least, most)."""
    result = {}
    for name, times in seconds.items():
        speedups = [base / own for base, own in zip(seconds[reference], times)]
        result[name] = (statistics.median(speedups), min(speedups), max(speedups))
    return result


def memory_ratios(variants: dict[str, Callable], reference: str) -> dict[str, float | None]:
    """Peak memory of one call of each variant over that of ``reference``; None where it cannot be read."""
    peaks = {name: peak_memory(variant) for name, variant in variants.items()}
    base = peaks[reference]
    return {name: peak / base if peak and base else None for name, peak in peaks.items()}


# torch counts the attention of GPUs alone; the CPU's operators take the same arguments first.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: (
        sdpa_backward_flop_count(grad, q, k, v)
    ),
}


def count_flops(call: Callable) -> int:
    """Floating-point operations of the matrix products (attention's too) in one ``call``."""
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        call()
    return counter.get_total_flops()


def matrix_peak(repeats: int = 5) -> float:
    """Operations per second of a large square matrix product in low precision, the best of ``repeats``."""
    device, size = ("cuda", 8192) if torch.cuda.is_available() else ("cpu", 2048)
    square = torch.ones(size, size, dtype=low_precision(), device=device)
    seconds = interleave({"product": lambda: square @ square}, repeats)["product"]
    return 2 * size**3 / min(seconds)


def low_precision() -> torch.dtype:
    return torch.float16 if torch.cuda.is_available() else torch.bfloat16


def shares_of_peak(variants: dict[str, Callable], seconds: dict[str, list[float]]) -> dict[str, float | None]:
    """Of `matrix_peak`; None of a variant whose products are not torch's (ONNX, OpenVINO)."""
    peak, operations = matrix_peak(), {name: count_flops(variant) for name, variant in variants.items()}
    return {
        name: count / statistics.median(seconds[name]) / peak if count else None for name, count in operations.items()
    }


def operator_shares(call: Callable, most: int = 8) -> dict[str, float]:
    """Share of the time of ``call`` by operator, those below not counted in those above: the ``most`` costly ones."""
    with torch.profiler.profile() as record:
        call()
    time_of = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    times = {event.key: getattr(event, time_of) for event in record.key_averages()}
    costly = sorted(times, key=lambda name: -times[name])[:most]
    return {name: times[name] / sum(times.values()) for name in costly}


def spread(ratio: tuple[float, float, float]) -> str:
    """A median with the least and the most beside it."""
    return "×{:.2f} ({:.2f}–{:.2f})".format(*ratio)
