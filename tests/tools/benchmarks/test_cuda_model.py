"""The model of the CUDA kernels' times, at sizes that can be worked out by hand."""
import pytest

from tools.benchmarks.cuda_model import GPUS, Gpu, Work, bound_us, kernel_row, occupancy

SMALL = Gpu(architecture=80, multiprocessors=10, ghz=1.0, gb_per_s=1000, float_lanes=64, shared_kb=100)


@pytest.mark.parametrize(("work", "expected"), [
    (Work(64 * 10 * 5000, 0, 0, 0, 100, 0), (5, "arithmetic")),
    (Work(64 * 5000, 0, 0, 0, 1, 0), (5, "arithmetic")),  # one block keeps one multiprocessor busy
    (Work(0, 10 * 7000, 0, 0, 10, 0), (7, "exchanges")),
    (Work(0, 0, 4 * 10 * 3000, 0, 10, 0), (3, "first cache")),  # four sectors a cycle
    (Work(0, 0, 0, 2e6, 10, 0), (2, "memory")),
    (Work(64 * 10, 0, 0, 0, 10, 500), (10, "barriers"))])
def test_the_slowest_part_bounds_the_time(work, expected):
    time, what = bound_us(work, SMALL)
    assert (time, what) == (pytest.approx(expected[0]), expected[1])


@pytest.mark.parametrize(("threads", "registers", "shared", "expected"), [
    (1024, 32, 0, 1.0), (1024, 33, 0, 0.5), (256, 40, 0, 0.75), (128, 32, 24 * 1024, 4 * 4 / 64), (32, 16, 0, 0.5)])
def test_occupancy(threads, registers, shared, expected):
    """Registers come in eights a thread; at most 32 blocks; a block takes a kilobyte of shared memory of its own."""
    assert occupancy(SMALL, threads, registers, shared) == expected


def test_a_line_of_ptxas(monkeypatch):
    monkeypatch.setattr("tools.benchmarks.cuda_model.demangled", lambda symbol: (
        "void act::(anonymous namespace)::sample<float, (int)8, (bool)1>(float const*, long*, int, long, bool)"))
    row = kernel_row(GPUS["A100"], "_Z1", "0", "0", "51", ", used 1 barriers, 512 bytes smem")
    assert row == {"architecture": 80, "kernel": "sample<float, 8, 1>", "registers": 51, "spilled": 0, "stack": 0,
                   "shared": 512, "occupancy": 0.5}
