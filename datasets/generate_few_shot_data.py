"""Draw the folds of few-shot classification: ``python -m datasets.generate_few_shot_data``.

A fold has ``shot`` training clouds of each of ``way`` random classes, from the training set, and 20 of each from the
test set. A fold depends on the seed, its way, shot and number alone.
"""
import pathlib
import pickle

import numpy as np
from tqdm import tqdm

from datasets.build import build_dataset_from_cfg
from datasets.few_shot import fold_path
from utils.command import run_command
from utils.config import load_section
from utils.errors import ConfigError, UserError
from utils.files import check_writable, replacing
from utils.parser import ArgumentParser, natural, positive

TESTS = 20  # test clouds a class


def draw_fold(train, test, way, shot, rng, tests=TESTS):
    """Return ``{"train": …, "test": …}``, lists of (points, label among the ``way``, class number).

    Raises ConfigError where the data sets have too few classes, or a class too few clouds.
    """
    counts = {"train": np.bincount(train.labels), "test": np.bincount(test.labels, minlength=train.labels.max() + 1)}
    fit = np.flatnonzero((counts["train"] >= shot) & (counts["test"][:len(counts["train"])] >= tests))
    if len(fit) < way:
        raise ConfigError(f"{way}-way {shot}-shot needs {way} classes with {shot} training and {tests} test clouds, "
                          f"but there are only {len(fit)}")
    fold = {"train": [], "test": []}
    for label, number in enumerate(rng.permutation(fit)[:way]):
        for name, data, count in (("train", train, shot), ("test", test, tests)):
            for index in rng.permutation(np.flatnonzero(data.labels == number))[:count]:
                fold[name].append((data[index][0].numpy(), label, int(number)))
    return fold


def write_fold(path, fold):
    """Pickle ``fold`` to ``path`` by way of a temporary file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        pickle.dump(fold, file)


def parse(argv=None):
    parser = ArgumentParser(description="Draw the folds of few-shot classification.")
    add = parser.add_argument
    add("--config", default="cfgs/dataset_configs/ModelNet40.yaml", metavar="FILE", help="the data set to draw from")
    add("--output", default="data/ModelNetFewshot", metavar="FOLDER")
    add("--ways", type=positive, nargs="+", default=[5, 10], metavar="N")
    add("--shots", type=positive, nargs="+", default=[10, 20], metavar="N")
    add("--folds", type=positive, default=10, metavar="N")
    add("--seed", type=natural, default=0, metavar="N")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="override keys of the data set")
    return parser.parse_args(argv)


def main():
    args = parse()
    try:
        pathlib.Path(args.output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{args.output} cannot be made: {error.strerror}") from error
    check_writable(pathlib.Path(args.output) / "fold")
    base = load_section(args.config, args.set)
    train, test = (build_dataset_from_cfg(base, {"subset": subset}) for subset in ("train", "test"))
    tasks = [(way, shot, fold) for way in args.ways for shot in args.shots for fold in range(args.folds)]
    try:
        for way, shot, fold in tqdm(tasks, "Drawing", unit="fold", disable=None):
            rng = np.random.default_rng((args.seed, way, shot, fold))
            write_fold(fold_path(args.output, way, shot, fold), draw_fold(train, test, way, shot, rng))
    except OSError as error:
        raise UserError(f"{args.output} cannot be written: {error.strerror}") from error
    print(f"{len(tasks)} folds in {args.output}")


if __name__ == "__main__":
    run_command(main)
