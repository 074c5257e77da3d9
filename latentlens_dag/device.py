"""The device, its threads, and the precision of products on it.

Threads. A product is divided among as many threads as the process may use processors; the states and neighbors of the
demo are the same bytes with one and two. Threads that wait for each other must sleep (`OMP_WAIT_POLICY=PASSIVE`): where
they spin (`ACTIVE`), the demo's searches took 10 to 30 times longer on two processors with other programs. Where they
sleep, two threads took 0.9 of the time of one, and 0.5 beside one more program that never waits.

Note: bfloat16 is not faster everywhere. Processors without instructions for it emulate it, twenty times slower than
float32. Whether there are instructions decides, not a timing, which would vary from run to run.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

_BYTES_AT_ONCE = 64 << 20  # of a matrix's rows in float32
_CGROUP = Path("/sys/fs/cgroup")
_GPU_DRIVERS = (  # CUDA, CUDA on a Jetson, ROCm, and CUDA in WSL; a device may lack its file until it is first used
    *("/dev/nvidiactl", "/dev/nvidia0", "/proc/driver/nvidia/version", "/sys/module/nvidia"),
    *("/dev/nvhost-ctrl", "/dev/nvmap", "/dev/kfd", "/dev/dxg"),
)
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # the last one of ARM


def configure_threads(cgroup: Path = _CGROUP) -> None:
    """Make waiting threads sleep, and use no more of them than a container's share of the processors.

    Settings of the user (`OMP_WAIT_POLICY`, `OMP_NUM_THREADS`) stay. They are read when torch is imported, so call this
    before.

    Args:
        cgroup: folder of the control group of the process (v2); without limits where it does not exist.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    share = _processor_share(cgroup / "cpu.max")
    if share is not None and share < _allowed_processors():
        os.environ.setdefault("OMP_NUM_THREADS", str(share))


def _allowed_processors() -> int:
    """The processors that the process may run on, which are as many threads as are used without `OMP_NUM_THREADS`."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor_share(limits: Path) -> int | None:
    """The processors that a control group's file `cpu.max` allows, rounded up; None where it sets no limit."""
    try:
        quota, period = limits.read_text(encoding="ascii").split()
        return None if quota == "max" else max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        return None


@contextmanager
def worker_threads(count: int) -> Iterator[Callable[[Callable[[int], Any], int], Iterator[Any]]]:
    """A function that calls another with 0, 1, .. n - 1 in `count` threads; gives the results in this order.

    torch uses one thread in each of them. One that is done takes the next number: so beside another program one does
    more than the other, where threads that share a product would wait for the slower one. With one thread, a call is
    made when its result is taken. Where no more results are taken, calls that have not begun are not made.
    """
    import torch

    if count == 1:
        yield lambda work, calls: map(work, range(calls))
        return
    within = torch.get_num_threads()
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield lambda work, calls: pool.map(work, range(calls))
        finally:
            torch.set_num_threads(within)  # MKL has one number for all threads


@cache
def default_device() -> str:
    """CUDA where there is one, else the CPU; torch is imported only where there is a driver of a GPU."""
    if not any(map(os.path.exists, _GPU_DRIVERS)):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@cache
def has_bfloat16(device: str = "cpu") -> bool:
    """Whether a device has instructions for products in bfloat16; what emulates it is many times slower.

    Of a CPU by /proc/cpuinfo; where there is none (macOS), it counts as a processor without them, as do devices other
    than CPU and CUDA.
    """
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_capability(device) >= (8, 0) or torch.version.hip is not None
    if not device.startswith("cpu"):
        return False
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    lines = (line.partition(":") for line in text.splitlines())
    flags = {flag for name, _, flags in lines if name.strip() in ("flags", "Features") for flag in flags.split()}
    return not flags.isdisjoint(_BFLOAT16_FLAGS)


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute products in their dtype: without TensorFloat-32, bfloat16 inside float32 or reduced sums."""
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


def float32_rows(matrix: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the rows of a matrix [V, d] with these rows in float32, block by block, to avoid a second copy.

    A float32 matrix comes whole: a product with part of it may differ in its last bits.
    """
    import torch

    at_once = len(matrix) if matrix.dtype == torch.float32 else _BYTES_AT_ONCE // (4 * matrix.shape[1])
    for start in range(0, len(matrix), max(at_once, 1)):
        part = slice(start, start + max(at_once, 1))
        yield part, matrix[part].float()


def in_float32(module: nn.Module) -> nn.Module:
    """The module itself if all its weights are float32, else a float32 copy."""
    import torch

    weights = (weight for weight in chain(module.parameters(), module.buffers()) if weight.is_floating_point())
    return module if all(weight.dtype == torch.float32 for weight in weights) else deepcopy(module).float()
