"""How fast this machine multiplies matrices, for tests that a slow one cannot finish."""
import functools
import time

import pytest
import torch

SIZE = 256
SLOWEST_SHARE = 1 / 3  # of float32's rate; processors without bf16 units have a tenth or less


@functools.cache
def matmul_rate(dtype: torch.dtype) -> float:
    """Return the rate of products of 256 × 256 matrices, the best of three measurements, in GFLOP/s."""
    matrix, best = torch.randn(SIZE, SIZE).to(dtype), float("inf")
    matrix @ matrix  # warms up
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(5):
            matrix @ matrix
        best = min(best, (time.perf_counter() - start) / 5)
    return 2 * SIZE**3 / best / 1e9


def skip_without_fast_bf16() -> None:
    """Skip the test where products in bf16 are much slower than in float32, and say how slow."""
    full, half = matmul_rate(torch.float32), matmul_rate(torch.bfloat16)
    if half < SLOWEST_SHARE * full:
        pytest.skip(f"no fast bf16 on this processor: {half:.1f} GFLOP/s, against {full:.1f} in float32")
