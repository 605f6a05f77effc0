"""Run a grid of config values and seeds and write one table: ``python tools/sweep.py SWEEP.yaml``.

A sweep file::

    command: main.py                    # or main_autoencoder.py
    config: cfgs/demo/pretrain.yaml
    flags: [--val_freq, 4]              # further options of the command
    grid:                               # every combination is run
      model.transformer_config.mask_ratio: [0.6, 0.8]
      model.loss: [cosine, smoothl1]
    seeds: [0, 1, 2]
    metrics: [SVM]                      # columns of the table, at the end of the runs

Each run is an experiment of its own. One that has ended is not run again, one that was interrupted goes on from its
last checkpoint; a run that fails is named, and the others go on. ``table.md`` and ``table.csv`` give the mean and
standard deviation over the seeds.
"""
import csv
import importlib
import io
import itertools
import json
import logging
import pathlib
import re
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.engine.checkpoints import LAST, SavedRun, is_there  # noqa: E402 - the script's folder is on the path
from utils import checkpoint  # noqa: E402
from utils.command import run_command  # noqa: E402
from utils.config import load_config, read_yaml, replace_text  # noqa: E402
from utils.distributed import check_alone  # noqa: E402
from utils.errors import ConfigError, UserError, nearest, one_line  # noqa: E402
from utils.files import check_writable  # noqa: E402
from utils.parser import ArgumentParser, autoencoder_arguments, main_arguments  # noqa: E402

KEYS = {"command": "main.py", "config": None, "flags": (), "grid": None, "seeds": (0,), "metrics": None}
FLAGS = "flags.json"  # in a run's folder: with which flags it was begun, of those that make it another run
IDENTITY_FLAGS = ("ckpts", "start_ckpts", "finetune_model", "scratch_model", "ema", "amp", "sync_bn")
PARSERS = {"main.py": main_arguments, "main_autoencoder.py": autoencoder_arguments}


def read_sweep(path):
    """Return the sweep file's keys, checked; ConfigError names the file and key."""
    sweep = read_yaml(path)
    for key in sweep:
        if key not in KEYS:
            raise ConfigError(f"{path}: unknown key '{key}'{nearest(key, KEYS)}")
    for key, default in KEYS.items():
        if key not in sweep and default is None:
            raise ConfigError(f"{path}: key '{key}' is missing")
    sweep = {**KEYS, **sweep}
    if sweep["command"] not in PARSERS:
        raise ConfigError(f"{path}: command '{sweep['command']}' is not one of {', '.join(PARSERS)}")
    if not isinstance(sweep["grid"], dict) or not all(
            isinstance(values, list) and values for values in sweep["grid"].values()):
        raise ConfigError(f"{path}: grid must map config keys to lists of values")
    for key in ("seeds", "metrics", "flags"):
        if not isinstance(sweep[key], (list, tuple)) or (key != "flags" and not sweep[key]):
            raise ConfigError(f"{path}: {key} is {sweep[key]}; it must be a list, as in [{sweep[key]}]")
    if not isinstance(sweep["config"], str):
        raise ConfigError(f"{path}: config is {sweep['config']}; it must name a file")
    folders = [folder_of(chosen) for chosen in combinations(sweep["grid"])]
    for folder in folders:
        if folders.count(folder) > 1:
            raise ConfigError(f"{path}: two combinations of the grid would share the folder '{folder}'; sweep them in "
                              f"files of their own")
    return sweep


def combinations(grid):
    """Return every combination of the grid as a tuple of (key, value)."""
    return list(itertools.product(*([(key, value) for value in values] for key, values in grid.items())))


def shown(value):
    """Return a value as tables and folders show it."""
    return "null" if value is None else str(value)


def folder_of(chosen):
    """Return the name of a combination's folder."""
    return re.sub(r"[^\w.=+-]+", "_", ",".join(
        f"{key.rsplit('.', 1)[-1]}={shown(value)}" for key, value in chosen)) or "plain"


def arguments(sweep, name, chosen, seed, work_dir):
    """Return the parsed command line of one run, and the list it was parsed from."""
    texts = [f"{key}={json.dumps(value)}" for key, value in chosen]  # JSON, so that a text stays a text
    argv = ["--config", sweep["config"], "--work_dir", work_dir, "--exp_name",
            f"{name}/{folder_of(chosen)}/seed{seed}", "--seed", str(seed), *map(str, sweep["flags"]),
            *(["--set", *texts] if texts else [])]
    return PARSERS[sweep["command"]](argv), argv


def run_one(sweep, name, chosen, seed, work_dir):
    """Run, go on with, or look up one run; returns its last metrics."""
    from tools.engine.resolve import resolve, same_run
    from tools.engine.run import read_config

    args, argv = arguments(sweep, name, chosen, seed, work_dir)
    flags = {key: getattr(args, key, None) for key in IDENTITY_FLAGS}
    if is_there(args.folder):
        config, saved = read_config(args)[1], args.folder / "config.yaml"
        if not same_run(resolve(load_config(saved), saved), config):
            raise ConfigError(f"{args.folder} holds a run of another config: remove it, or rename the sweep file")
        if (args.folder / FLAGS).is_file() and read_yaml(args.folder / FLAGS) != flags:
            raise ConfigError(f"{args.folder} holds a run with other flags: remove it, or rename the sweep file")
        state = SavedRun(args.folder, logging.getLogger("act")).read()[1]
        if state["epoch"] >= config.max_epoch:
            return state["metrics"]
        argv.append("--resume")
    args.folder.mkdir(parents=True, exist_ok=True)
    replace_text(args.folder / FLAGS, json.dumps(flags))
    importlib.import_module(sweep["command"].removesuffix(".py")).main(argv)
    return checkpoint.read(args.folder / LAST)["metrics"]


def check_metrics(sweep, metrics):
    """Raise ConfigError where a run has not got a metric that the table is to show."""
    absent = [name for name in sweep["metrics"] if name not in metrics]
    if absent:
        raise ConfigError(f"the runs report no metric '{absent[0]}'; there are {', '.join(metrics)}")


def tables(sweep, results):
    """Return the Markdown and the CSV text; ``results`` are combinations with lists of metrics, one a seed."""
    keys = list(sweep["grid"])
    header = [key.rsplit(".", 1)[-1] for key in keys]
    markdown = [header + list(sweep["metrics"]) + ["seeds"]]
    rows = [keys + [f"{name} {what}" for name in sweep["metrics"] for what in ("mean", "std")] + ["seeds"]]
    for chosen, runs in results:
        values = [shown(value) for _, value in chosen]
        spread = [[run[name] for run in runs] for name in sweep["metrics"]]
        means = [(float(np.mean(numbers)), float(np.std(numbers))) for numbers in spread]
        markdown.append([*values, *(f"{mean:.2f} ± {std:.2f}" for mean, std in means), str(len(runs))])
        rows.append([*values, *(f"{number:.6g}" for pair in means for number in pair), str(len(runs))])
    lines = ["| " + " | ".join(row) + " |" for row in markdown]
    lines.insert(1, "|" + " --- |" * len(markdown[0]))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return "\n".join(lines) + "\n", text.getvalue()


def main(argv=None):
    parser = ArgumentParser(description="Run a grid of config values and seeds and write one table.")
    parser.add_argument("sweep", metavar="SWEEP.yaml", help="what to run; the head of tools/sweep.py shows one")
    parser.add_argument("--work_dir", default="work_dirs", metavar="DIR", help="where experiment folders are made")
    args = parser.parse_args(argv)
    check_alone("tools/sweep.py")
    sweep, name = read_sweep(args.sweep), pathlib.Path(args.sweep).stem
    folder = pathlib.Path(args.work_dir) / "sweeps" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}") from error
    check_writable(folder / "table.md")
    results, failed = {}, 0
    for chosen in combinations(sweep["grid"]):
        for seed in sweep["seeds"]:
            title = " ".join(f"{key}={shown(value)}" for key, value in chosen) or "plain"
            print(f"\n=== {title}, seed {seed}", flush=True)
            try:
                metrics = run_one(sweep, name, chosen, seed, args.work_dir)
            except (UserError, RuntimeError) as error:  # the latter: out of memory, say
                failed += 1
                print(f"error: {title}, seed {seed}: {one_line(error)}", file=sys.stderr)
                continue
            check_metrics(sweep, metrics)
            results.setdefault(folder_of(chosen), (chosen, []))[1].append(metrics)
        markdown, comma = tables(sweep, results.values())
        replace_text(folder / "table.md", markdown)
        replace_text(folder / "table.csv", comma)
    print(f"\n{markdown}\nWritten to {folder}: table.md, table.csv")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    run_command(main)
