"""What every part of the benchmark uses: the time of a call, and clouds to measure on."""
import statistics
import time

import torch

SECONDS = 1.0  # spent on each measurement at least


def median_ms(function, device, least=5):
    """Return the median time of a call in milliseconds."""
    def once():
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once(), once()
    times = []
    while len(times) < least or (sum(times) < SECONDS and len(times) < 1000):
        times.append(once())
    return 1e3 * statistics.median(times)


def surfaces(batch, points, device):
    """Return clouds (batch, points, 3) on ellipsoids, as spread out as scanned surfaces."""
    cloud = torch.randn(batch, points, 3, generator=torch.Generator().manual_seed(0))
    return (cloud / cloud.norm(dim=-1, keepdim=True) * torch.tensor([1, 0.7, 0.4])).to(device)
