"""Which arithmetic a processor should use, and how to keep torch from using another one.

What a newcomer gets wrong: bfloat16 is not faster everywhere. Processors without instructions for it emulate it, twenty
times as slowly as float32, so the choice is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache


@cache
def bfloat16_pays(device: str = "cpu") -> bool:
    """Whether products in bfloat16 take less than two thirds of the time of float32, measured once per process."""
    import torch

    def seconds(dtype: torch.dtype) -> float:
        rows, columns = (torch.ones(n, 512, dtype=dtype, device=device) for n in (256, 128))
        return min(_timed(lambda: torch.mm(rows, columns.T).sum().item()) for _ in range(4))

    return seconds(torch.bfloat16) < seconds(torch.float32) * 2 / 3


def default_device() -> str:
    """CUDA where there is one, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def full_precision() -> Iterator[None]:
    """Products in the arithmetic they say: without TensorFloat-32, bfloat16 inside of float32, or reduced sums."""
    import torch

    matmul, precision = torch.backends.cuda.matmul, torch.get_float32_matmul_precision()
    reduced = matmul.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest")
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        matmul.allow_bf16_reduced_precision_reduction = reduced


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
