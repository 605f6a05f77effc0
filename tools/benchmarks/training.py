"""One training step of each stage."""
import contextlib
import pathlib
import tempfile

import torch
import yaml

from tools.benchmarks.timing import median_ms
from tools.engine.run import open_run
from tools.engine.trainer import Trainer
from tools.tasks import autoencoding, classification, pretraining
from utils.parser import autoencoder_arguments, main_arguments

ROOT = pathlib.Path(__file__).resolve().parents[2]

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
        run = open_run(arguments(argv))
        run.log.setLevel("ERROR")
        trainer = Trainer(run, task_class(run))
        trainer.model.train()
        batches = list(trainer.task.loader)
        reset_peak(device)
        calls = iter(range(10 ** 9))
        flops = counted_flops(lambda: trainer.step(batches[next(calls) % len(batches)]))
        trainer.step(batches[0])
        step_ms = median_ms(lambda: trainer.step(batches[next(calls) % len(batches)]), device, least=STEPS)
        run.records.close()
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
