"""Say before training what data is there, missing or damaged: ``python -m datasets.verify CONFIG``."""
import collections
import concurrent.futures
import os
import sys

import numpy as np
from easydict import EasyDict
from tqdm import tqdm

from datasets.build import DATASETS, build_dataset_from_cfg
from utils.command import run_command
from utils.config import apply_few_shot, load_section
from utils.errors import ConfigError, DataError, one_line
from utils.parser import ArgumentParser

MOST_NAMED = 10  # damaged clouds that are named


def verify_split(base, others, section):
    """Build the data set and read each of its clouds.

    Returns a list of lines that say what is there, and a list of those that say what is wrong.
    """
    try:
        data = build_dataset_from_cfg(base, others, section)
    except DataError as error:
        return [], [str(error)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(tqdm(pool.map(lambda index: problem(data, index), range(len(data))), section, len(data),
                            unit="cloud", leave=False, disable=None))
    wrong = [result for result in results if result]
    found = [data.describe()]
    if data.labels is not None:
        counts = collections.Counter(np.asarray(data.labels).tolist())
        found[0] += f", {min(counts.values())} to {max(counts.values())} a class"
        empty = [name for label, name in enumerate(data.class_names) if not counts[label]]
        if empty:
            found.append(f"classes without a cloud: {', '.join(empty)}")
    if wrong:
        more = [f"… and {len(wrong) - MOST_NAMED} more"] if len(wrong) > MOST_NAMED else []
        wrong = [f"{len(wrong)} of {len(data)} clouds are damaged:", *wrong[:MOST_NAMED], *more]
    return found, wrong


def problem(data, index):
    """Return what is wrong with a cloud, or None."""
    try:
        points = data[index][0]
    except DataError as error:
        return str(error)
    if not points.isfinite().all():
        return f"{data.ids[index]} holds NaN or infinite coordinates"
    return None


def sections_of(config):
    """Return name → (base, others) of the data sets of a run's config, or of a data set's own file."""
    if "dataset" in config:
        sections = {split: (section.get("_base_"), section.get("others", {}))
                    for split, section in config.dataset.items()}
        return {f"dataset.{split}": value for split, value in sections.items() if value[0]}
    if "NAME" in config:
        return {subset: (config, {"subset": subset}) for subset in ("train", "test")}
    raise ConfigError("it names no data set: neither 'dataset' nor 'NAME' is in it")


FOLDS = [(way, shot, fold) for way in (5, 10) for shot in (10, 20) for fold in range(10)]  # those of the paper


def every_fold(sections):
    """Return ``sections`` with each few-shot data set replaced by all of its folds."""
    result = {}
    for name, (base, others) in sections.items():
        if base.get("NAME") != "ModelNetFewShot":
            result[name] = (base, others)
            continue
        for way, shot, fold in FOLDS:
            result[f"{name}, {way}-way {shot}-shot, fold {fold}"] = (base, {**others, "way": way, "shot": shot,
                                                                          "fold": fold})
    return result


def main():
    parser = ArgumentParser(description="Say what data of a config is there, missing or damaged.")
    parser.add_argument("config", metavar="CONFIG", help="a run's config file, or one of cfgs/dataset_configs/")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="override config values")
    for name in ("way", "shot", "fold"):
        parser.add_argument(f"--{name}", type=int, metavar="N", help="of a few-shot config")
    args = parser.parse_args()
    config = EasyDict(load_section(args.config, args.set))
    try:
        apply_few_shot(config, args)
        sections = sections_of(config)
        if None in (args.way, args.shot, args.fold):
            sections = every_fold(sections)
    except ConfigError as error:
        raise ConfigError(f"{args.config}: {error}") from None
    failed, seen = False, {}
    for section, (base, others) in sections.items():
        key = repr((sorted(base.items()), sorted(others.items())))
        print(f"{section}: {base.get('NAME')}")
        if key in seen:
            print(f"  as {seen[key]}")
            continue
        seen[key] = section
        found, wrong = verify_split(base, others, section)
        for line in found:
            print(f"  {line}")
        for line in wrong:
            print(f"  {one_line(line)}")
        if wrong:
            failed = True
            print(f"  get it: {DATASETS.get(base['NAME']).source}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    run_command(main)
