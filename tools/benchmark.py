"""Measure the operators, the training steps and the data: ``python tools/benchmark.py {ops,train,data,i2p}``.

Times are medians. Every figure of one run is measured in that run, the rate of matrix products included that the
training steps are compared with.
"""
import contextlib
import json
import pathlib
import platform
import sys
import tempfile
import time

import numpy as np
import torch
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import extensions  # noqa: E402 - the script's folder is on the path, the project's is not
from datasets import pack  # noqa: E402
from datasets.shapenet import ShapeNet  # noqa: E402
from tools.benchmarks.i2p import measure_i2p  # noqa: E402
from tools.benchmarks.operators import measure_ops, median_ms, surfaces  # noqa: E402
from tools.engine.metrics import align  # noqa: E402
from tools.engine.run import choose_device, keep_freed_memory, open_experiment  # noqa: E402
from tools.engine.trainer import Trainer  # noqa: E402
from tools.tasks import autoencoding, classification, pretraining  # noqa: E402
from utils.command import run_command  # noqa: E402
from utils.parser import ArgumentParser, autoencoder_arguments, main_arguments  # noqa: E402

STEPS = 7  # timed, after three that warm up
MATMUL = 2048

# published full-size models; ScanObjectNN's setting for fine-tuning
STAGES = {
    "stage1": (autoencoding.Autoencoding, autoencoder_arguments,
               "cfgs/autoencoder/act_dvae_with_pretrained_transformer.yaml",
               {"visual_embed_pretrained": False}, {"npoints": 1024}),
    "stage2": (pretraining.Pretraining, main_arguments, "cfgs/pretrain/pretrain_act_distill.yaml",
               {"dvae_config": {"visual_embed_pretrained": False, "ckpt": None}}, {"npoints": 1024}),
    "finetune": (classification.Classification, main_arguments,
                 "cfgs/finetune_classification/full/finetune_modelnet.yaml",
                 {"num_group": 128, "cls_dim": 20}, {"npoints": 2048}),
}


def hardware(device):
    """Return what the measurements were made on."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), name)
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, {name}"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def matmul_gflops(device, dtype=torch.float32):
    """Return the rate of a square matrix product, 2 n³ operations, in GFLOP/s."""
    a, b = torch.randn(2, MATMUL, MATMUL, device=device, dtype=dtype)
    return 2 * MATMUL ** 3 / median_ms(lambda: a @ b, device) / 1e6


def measure_train(args, device):
    """Return the measurements of one training step of each stage, on the embedded clouds."""
    gflops = matmul_gflops(device)
    results = {stage: measure_stage(stage, args, device, gflops) for stage in args.stages}
    return gflops, results


def measure_stage(stage, args, device, gflops):
    """Measure the very step that training takes: augmentation, forward, backward, clipping, optimizer."""
    task_class, arguments, config, model, data = STAGES[stage]
    with tempfile.TemporaryDirectory() as folder:
        argv = ["--config", small_data(config, model, data, args.batch, folder), "--work_dir", folder,
                "--device", args.device, "--amp", args.amp, "--num_workers", "0"]
        argv += ["--compile"] * args.compile + ["--scratch_model"] * (stage == "finetune")
        experiment = open_experiment(arguments(argv))
        experiment.log.setLevel("ERROR")
        trainer = Trainer(experiment, task_class(experiment))
        trainer.model.train()
        batches = list(trainer.task.loader)
        reset_peak(device)
        calls = iter(range(10 ** 9))
        flops = counted_flops(lambda: trainer.step(batches[next(calls) % len(batches)]))
        trainer.step(batches[0])
        step_ms = median_ms(lambda: trainer.step(batches[next(calls) % len(batches)]), device, least=STEPS)
        experiment.records.close()
    seconds = step_ms / 1e3
    return {
        "amp": args.amp, "compile": args.compile, "batch": args.batch, "step_ms": round(step_ms, 2),
        "samples_per_s": round(args.batch / seconds, 2), "gflop": round(flops / 1e9, 2),
        "share_of_matmul": round(flops / 1e9 / seconds / gflops, 3),
        "gflop_equivalents_per_sample": round(seconds * gflops / args.batch, 2), "peak_mb": round(peak_mb(device)),
    }


def small_data(config, model, data, batch, folder):
    """Write a copy of ``config`` that reads embedded clouds; returns its path."""
    content = yaml.safe_load((ROOT / config).read_text())
    for key, value in model.items():
        content["model"][key] = {**content["model"][key], **value} if isinstance(value, dict) else value
    content["dataset"] = {
        split: {"_base_": str(ROOT / "cfgs/dataset_configs/Shapes.yaml"),
                "others": {"subset": subset, "size": 2 * batch, **data}}
        for split, subset in (("train", "train"), ("val", "test"))}
    content.update(total_bs=batch, step_per_update=1, npoints=data["npoints"])
    path = pathlib.Path(folder) / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def counted_flops(function):
    """Return the floating-point operations of a call, as torch counts them; it counts no compiled graph."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def reset_peak(device):
    """Begin to watch the peak of memory from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            pathlib.Path("/proc/self/clear_refs").write_text("5")


def peak_mb(device):
    """Return the peak of memory in MiB: of the GPU, or resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2 ** 20
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 2 ** 10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 10


def measure_data(args):
    """Return clouds per second of a folder of ``.npy`` files and of the same clouds packed, read in random order."""
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "lists").mkdir(), (root / "clouds").mkdir()
        names = [f"03001627-{index:06}.npy" for index in range(args.files)]
        cloud = surfaces(1, 8192, torch.device("cpu"))[0].numpy()
        for name in names:
            np.save(root / "clouds" / name, cloud)
        for subset in ("train", "test"):
            (root / "lists" / f"{subset}.txt").write_text("\n".join(names))
        for form in ("npy", "packed"):
            if form == "packed":
                pack.pack_folder(root / "clouds")
            data = ShapeNet(DATA_PATH=root / "lists", PC_PATH=root / "clouds", subset="train", npoints=1024)
            order = np.random.default_rng(0).permutation(len(data))
            start = time.perf_counter()
            for index in order:
                data[index]
            rates[form] = round(len(data) / (time.perf_counter() - start), 1)
    return rates


def parse(argv=None):
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("ops", "train", "data", "i2p"))
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
