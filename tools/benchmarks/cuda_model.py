"""The CUDA kernels' part of the benchmark where no GPU is: counts, not measurements.

nvcc says how many registers and how much memory a kernel takes, and the emulator of tests/cuda_on_cpu what its warps
do. From it follows a time that a GPU cannot go below, beside that of the published algorithms, counted by hand.
"""
import importlib.util
import pathlib
import re
import subprocess
import tempfile
from typing import NamedTuple

import torch

from extensions import compile
from extensions.compile import CompileError
from utils.errors import ConfigError

EMULATOR = pathlib.Path(__file__).resolve().parents[2] / "tests" / "cuda_on_cpu" / "emulated.py"
WARP = 32
# instructions a distance: three differences, three products, two sums, which are not fused
DISTANCE = 8
KEEP_NEARER = 4  # a comparison or minimum, what is not a number, two selections


class Gpu(NamedTuple):
    """What bounds a kernel, from NVIDIA's data sheets and programming guide."""
    architecture: int
    multiprocessors: int
    ghz: float
    gb_per_s: float
    float_lanes: int        # float32 instructions a cycle and multiprocessor
    shared_kb: int          # shared memory a multiprocessor


GPUS = {"A100": Gpu(80, 108, 1.41, 1555, 64, 164), "H100": Gpu(90, 132, 1.755, 3352, 128, 228)}
REGISTERS, MOST_WARPS, MOST_BLOCKS = 65536, 64, 32  # a multiprocessor's, of both


class Work(NamedTuple):
    """What a call does: float32 instructions of lanes, exchanges of warps, bytes of global memory asked for by warps in
    whole sectors, bytes that have to move at least, blocks and barriers one after the other."""
    instructions: float
    exchanges: float
    sectors: float
    bytes: float
    blocks: int
    barriers: float


def bound_us(work, gpu):
    """Return the least time in microseconds, and what bounds it."""
    cycle = 1e-3 / gpu.ghz  # µs
    busy = min(work.blocks, gpu.multiprocessors)
    limits = {
        "arithmetic": work.instructions / (busy * gpu.float_lanes) * cycle,
        "exchanges": work.exchanges / busy * cycle,  # a warp's shuffle, ballot or reduction a cycle
        "first cache": 32 * work.sectors / (busy * 128) * cycle,
        "memory": work.bytes / gpu.gb_per_s * 1e-3,
        "barriers": 20 * work.barriers * cycle,
    }
    what = max(limits, key=limits.get)
    return limits[what], what


def measure_cuda_model():
    """Return the rows of both tables: of kernels by nvcc, and of operators by their counts."""
    try:
        compile.nvcc()
    except CompileError as error:
        raise ConfigError(f"the counts of CUDA kernels need nvcc: {error}") from error
    return {"kernels": [row for gpu in GPUS.values() for row in compiled_kernels(gpu)], "operators": operators()}


def compiled_kernels(gpu):
    """Return a row a kernel of what ptxas reports, and how many of a multiprocessor's warps it can occupy."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for source in sorted((compile.SOURCES / "cuda").glob("*.cu")):
            command = [compile.nvcc(), "-std=c++17", "-O3", "--fmad=false", "-DACT_CUDA", "-Xptxas", "-v", "-cubin",
                       f"-arch=sm_{gpu.architecture}", str(source), "-o", f"{folder}/kernels.cubin"]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                raise ConfigError(f"nvcc failed on {source.name}: {result.stderr.splitlines()[0]}")
            rows += [kernel_row(gpu, *found) for found in re.findall(
                r"Compiling entry function '(\S+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores.*?"
                r"Used (\d+) registers(.*?)\n", result.stderr, re.DOTALL)]
    return rows


def kernel_row(gpu, symbol, stack, spills, registers, rest):
    plain = demangled(symbol).replace("(bool)", "").replace("(int)", "")
    name = re.search(r"\(anonymous namespace\)::(\w+(?:<[^()]*>)?)", plain)[1]
    shared = int((re.search(r"(\d+) bytes smem", rest) or [0, 0])[1])
    threads = {"sample": 1024, "sample_large": 1024, "invert": 1024, "search": 128, "search_any": 128, "patches": 128,
               "ball": 128}.get(name.split("<")[0], 256)
    return {"architecture": gpu.architecture, "kernel": name, "registers": int(registers), "spilled": int(spills),
            "stack": int(stack), "shared": shared, "occupancy": occupancy(gpu, threads, int(registers), shared)}


def demangled(symbol):
    return subprocess.run(["c++filt", symbol], capture_output=True, text=True, check=True).stdout


def occupancy(gpu, threads, registers, shared):
    """Return the share of a multiprocessor's warps that blocks of ``threads`` can occupy."""
    warps = -(-threads // WARP)
    by_registers = REGISTERS // (-(-registers * WARP // 256) * 256 * warps)
    by_shared = gpu.shared_kb * 1024 // (shared + 1024)  # a block's own kilobyte
    return min(by_registers, by_shared, MOST_WARPS // warps, MOST_BLOCKS) * warps / MOST_WARPS


def operators():
    """Return a row an operator and size: its least time and the published algorithm's, on each GPU."""
    knn = 128, 64, 1024, 32
    cases = [("FPS 32 × (8192 → 1200)", fps_work(32, 8192, 1200), published_fps(32, 8192, 1200), "pointnet2_ops"),
             ("FPS 32 × (2048 → 128)", fps_work(32, 2048, 128), published_fps(32, 2048, 128), "pointnet2_ops"),
             ("kNN 128 × 64 in 1024, k = 32", knn_work(*knn), published_knn(*knn), "KNN_CUDA"),
             ("Chamfer 8192 × (32, 32)", chamfer_work(8192, 32), published_chamfer(8192, 32), "pytorch3d"),
             ("Chamfer 1 × (2048, 2048)", chamfer_work(1, 2048), published_chamfer(1, 2048), "pytorch3d")]
    rows = []
    for name, ours, theirs, whose in cases:
        row = {"operator": name, "beside": whose}
        for gpu_name, gpu in GPUS.items():
            row[gpu_name], row[f"{gpu_name} bound by"] = bound_us(ours, gpu)
            row[f"{gpu_name} published"], row[f"{gpu_name} published bound by"] = bound_us(theirs, gpu)
        rows.append(row)
    return rows


def counted(operator, *arguments):
    """Run an operator on the emulator and return the sum of its kernels' counts."""
    spec = importlib.util.spec_from_file_location("emulated", EMULATOR)
    emulated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(emulated)
    emulator = emulated.Emulator(emulated.library())
    emulator.count()
    emulator.call(operator, *arguments)
    total = {}
    for counts in emulator.counts().values():
        for name, value in counts.items():
            total[name] = total.get(name, 0) + value
    emulator.count(accesses=False)
    return total


def exchanges(counts):
    return counts["shuffles"] + counts["ballots"] + counts["reductions"]


def sectors(counts):
    return counts["load_sectors"] + counts["store_sectors"]


def surfaces(batch, points):
    cloud = torch.randn(batch, points, 3, generator=torch.Generator().manual_seed(0))
    return cloud / cloud.norm(dim=-1, keepdim=True) * torch.tensor([1, 0.7, 0.4])


def fps_work(batch, points, npoint):
    """A pick does the same every time: two numbers of picks tell what one does."""
    few, more = (counted("furthest_point_sample", surfaces(1, points), count, True) for count in (2, 4))
    picks = npoint - 2

    def scaled(value):
        return batch * (value(few) + picks * (value(more) - value(few)) / 2)

    return Work(batch * points * npoint * (DISTANCE + KEEP_NEARER), scaled(exchanges), scaled(sectors),
                batch * (12 * points + 8 * npoint), batch, scaled(lambda counts: counts["barriers"]) / batch)


def knn_work(batch, queries, points, k, tried=16):
    counts = counted("knn", surfaces(1, points), surfaces(1, points)[:, :tried].contiguous(), k)
    times = batch * queries / tried
    return Work(batch * queries * points * (DISTANCE + KEEP_NEARER), times * exchanges(counts), times * sectors(counts),
                batch * (12 * (points + queries) + 12 * queries * k), batch * queries // 4, 0)


def chamfer_work(batch, points, tried=4):
    tried = min(tried, batch)
    counts = counted("chamfer", surfaces(tried, points), surfaces(tried, points) + 0.01)
    times = batch / tried
    return Work(2 * batch * points ** 2 * (DISTANCE + KEEP_NEARER), times * exchanges(counts), times * sectors(counts),
                2 * batch * points * (12 + 12), int(times * counts["blocks"]), counts["barriers"] / counts["blocks"])


def published_fps(batch, points, npoint):
    """A block a cloud: a pick reads the points and their distances from global memory and writes those, then halves
    512 candidates in shared memory, a barrier a step."""
    per_pick = points * (12 + 4 + 4) / 32
    norm = 6  # of each point, for those at the origin
    return Work(batch * points * npoint * (DISTANCE + KEEP_NEARER + norm), 0, batch * npoint * per_pick,
                batch * (12 * points + 8 * npoint), batch, 11 * npoint)


def published_knn(batch, queries, points, k):
    """A matrix of distances in global memory, and a thread a query that sorts its column by insertion."""
    pairs = batch * queries * points
    inserted = batch * queries * k * (1 + torch.log(torch.tensor(points / k)).item())
    return Work(pairs * (DISTANCE + 2), 0, (2 * pairs + 4 * inserted * k / 2) * 4 / 32,
                2 * 4 * pairs + batch * queries * k * 12, batch * -(-queries // 256), 0)


def published_chamfer(batch, points):
    """A search for one neighbour each way: a thread a query, which reads the other cloud from global memory, all lanes
    of a warp the same point."""
    pairs = 2 * batch * points ** 2
    return Work(pairs * (DISTANCE + KEEP_NEARER), 0, pairs / WARP, 2 * batch * points * (12 + 12),
                2 * -(-batch * points // 256), 0)


def print_tables(report, align):
    """Print both tables, and what they are not."""
    kernels = report["kernels"]
    print(align([["sm", "kernel", "registers", "spilled", "stack", "shared", "occupancy"], *(
        [str(row["architecture"]), row["kernel"], str(row["registers"]), str(row["spilled"]), str(row["stack"]),
         str(row["shared"]), f"{row['occupancy']:.0%}"] for row in kernels)]))
    print("\nLeast times in µs by count. These are no measurements: no kernel reaches all of a GPU's rates.\n")
    head = [text for name in GPUS for text in (name, "bound by", "published", "bound by")]
    print(align([["operator", *head, "published by"], *([row["operator"], *(text for name in GPUS for text in (
        f"{row[name]:.0f}", row[f"{name} bound by"], f"{row[f'{name} published']:.0f}",
        row[f"{name} published bound by"])), row["beside"]] for row in report["operators"])]))
