"""What the machine can do at most: every figure of a benchmark stands beside these."""

import platform
from functools import cache
from pathlib import Path

import torch

from coca_video.benchmarks.measure import seconds_of

# Products 'm k' x 'k n' that come near the ceiling: square ones, and the MLPs of ViTs of width 768 and 1024.
PRODUCTS = [(1024, 1024, 1024), (2048, 2048, 2048), (1568, 768, 3072), (2056, 1024, 4096)]
LARGE_PRODUCTS = [(8192, 8192, 8192), (25088, 768, 3072), (16448, 1024, 4096)]  # fill a GPU
COPIED = 2**28  # bytes


def describe(device: torch.device) -> dict:
    """What the machine is, and its ceilings; threads are those of this process."""
    is_cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_cuda else _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "matmul_gflops": matmul_gflops(device, torch.float32),
        "copy_gb_per_second": _copy_gb_per_second(device),
    }


@cache  # one ceiling a run
def matmul_gflops(device: torch.device, dtype: torch.dtype) -> float:
    """The best rate of a product over several shapes, of five tries each."""
    products = PRODUCTS + (LARGE_PRODUCTS if device.type == "cuda" else [])
    return max(_product_gflops(*shape, device=device, dtype=dtype) for shape in products)


def _product_gflops(m: int, k: int, n: int, *, device: torch.device, dtype: torch.dtype) -> float:
    a, b = (torch.randn(shape, device=device, dtype=dtype) for shape in ((m, k), (k, n)))
    return 2 * m * k * n / min(seconds_of(lambda: a @ b, device) for _ in range(5)) / 1e9


def _copy_gb_per_second(device: torch.device) -> float:
    """Bytes read and written."""
    source = torch.ones(COPIED // 4, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED / min(seconds_of(lambda: target.copy_(source), device) for _ in range(5)) / 1e9


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "cpu"
