"""Measure operators, training steps and data: ``python tools/benchmark.py {ops,train,data,i2p,cuda-model}``.

Times are medians. Every figure of one run is measured in that run, the rate of matrix products included that the
training steps are compared with.
"""
import contextlib
import json
import pathlib
import platform
import sys

import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import extensions  # noqa: E402 - the script's folder is on the path, the project's is not
from tools.benchmarks.cuda_model import measure_cuda_model, print_tables  # noqa: E402
from tools.benchmarks.data import measure_data  # noqa: E402
from tools.benchmarks.i2p import measure_i2p  # noqa: E402
from tools.benchmarks.operators import measure_ops  # noqa: E402
from tools.benchmarks.training import STAGES, measure_train  # noqa: E402
from tools.engine.run import choose_device, keep_freed_memory  # noqa: E402
from utils.command import run_command  # noqa: E402
from utils.parser import ArgumentParser  # noqa: E402
from utils.tables import align  # noqa: E402


def hardware(device):
    """Return what the measurements were made on."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), name)
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, {name}"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def parse(argv=None):
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("ops", "train", "data", "i2p", "cuda-model"))
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 …")
    parser.add_argument("--amp", choices=("off", "bf16", "fp16"), default="off",
                        help="mixed precision, for train and i2p")
    parser.add_argument("--compile", action="store_true", help="compile the model, for train")
    parser.add_argument("--batch", type=int, default=8, help="clouds a step, for train and i2p")
    parser.add_argument("--stages", nargs="+", choices=tuple(STAGES), default=list(STAGES), help="for train")
    parser.add_argument("--encoder", default="ViT-B/16", help="image model with random weights, for i2p")
    parser.add_argument("--feat_dim", type=int, default=512, help="width of its features, for i2p")
    parser.add_argument("--files", type=int, default=2000, help="clouds of 8,192 points, for data")
    parser.add_argument("--json", metavar="FILE", help="write the results to FILE too")
    return parser.parse_args(argv)


def main():
    args = parse()
    device = choose_device(args.device)
    if device.type == "cpu":
        keep_freed_memory()
    report = {"hardware": hardware(device)}
    print(f"{report['hardware']}; operators: {extensions.backend(device)}\n")
    if args.what == "ops":
        report["ops"] = measure_ops(device)
        names = sorted({name for row in report["ops"] for name in row["peers"]})
        print(align([["operator", "size", "ms", *names], *(
            [row["op"], row["size"], f"{row['ms']:.2f}", *(times_as_long(row, name) for name in names)]
            for row in report["ops"])]))
    elif args.what == "train":
        report["matmul_gflops"], report["train"] = measure_train(args, device)
        print(f"float32 matrix product: {report['matmul_gflops']:.0f} GFLOP/s\n")
        keys = list(next(iter(report["train"].values())))
        print(align([["stage", *keys], *([stage, *(str(row[key]) for key in keys)]
                                          for stage, row in report["train"].items())]))
    elif args.what == "i2p":
        report["i2p"] = measure_i2p(args, device)
        print(align([[name.replace("_", " "), str(value)] for name, value in report["i2p"].items()]))
    elif args.what == "cuda-model":
        report["cuda_model"] = measure_cuda_model()
        print_tables(report["cuda_model"], align)
    else:
        report["data"] = measure_data(args)
        print(align([["files", "clouds a second"], *([name, str(rate)] for name, rate in report["data"].items())]))
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(report, indent=1) + "\n")


def times_as_long(row, name):
    """Return a peer's time and how many times longer it is."""
    time_ms = row["peers"].get(name)
    return "" if time_ms is None else f"{time_ms:.2f} ({time_ms / max(row['ms'], 1e-6):.1f}x)"


if __name__ == "__main__":
    run_command(main)
