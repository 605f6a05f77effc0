"""All folds of few-shot classification: ``python tools/few_shot.py --config FILE --ckpts FILE [main.py's options]``.

Every fold is a fine-tuning of its own, in ``<exp_name>/<way>way_<shot>shot/<fold>/``; a fold whose ``result.json`` is
there is not run again. In the end stands the mean over the folds, with the standard deviation.
"""
import json
import pathlib
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from datasets.few_shot import fold_path  # noqa: E402
from utils.command import run_command  # noqa: E402
from utils.config import apply_data_flags, checked, load_config, plain, replace_text  # noqa: E402
from utils.distributed import check_alone  # noqa: E402
from utils.errors import ConfigError, DataError  # noqa: E402
from utils.parser import ArgumentParser, main_arguments, positive  # noqa: E402
from utils.tables import align  # noqa: E402
from utils.text import parse_json  # noqa: E402 - the script's folder is on the path, the project's is not


def run_fold(args):
    """Fine-tune on one fold, or read what came out of it before; returns the last and the best OA in percent.

    Raises ConfigError where what came out before was of another checkpoint, config or seed.
    """
    path, identity = args.folder / "result.json", identity_of(args)
    if path.is_file():
        result = read_result(path)
        before = {**result["of"], "config": resolved(result["of"].get("config"), path)}
        differing = [key for key in identity if before.get(key) != identity[key]]
        if differing:
            raise ConfigError(f"{path} is the result of another {', '.join(differing)}: choose another --exp_name, or "
                              f"remove {path.parents[1]}")
        return result
    from tools.tasks import classification

    progress = classification.run(args)
    result = {"last": progress.metrics["OA"], "best": progress.best["OA"]["OA"], "of": identity}
    replace_text(path, json.dumps(result) + "\n")
    return result


def read_result(path):
    """Return what a fold's ``result.json`` holds; DataError where it is damaged."""
    try:
        result = parse_json(path.read_bytes())
        if not isinstance(result["of"], dict) or not all(isinstance(result[key], float) for key in ("last", "best")):
            raise TypeError("it is not the result of a fold")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}): remove it, and the fold is run again") from error
    return result


def identity_of(args):
    """Return what the result of a fold depends on."""
    from tools.engine.resolve import resolve

    file = pathlib.Path(args.ckpts).stat() if args.ckpts and pathlib.Path(args.ckpts).is_file() else None
    return {"checkpoint": args.ckpts and [args.ckpts, file and file.st_size, file and file.st_mtime_ns],
            "config": plain(resolve(load_config(args.config, args.set), args.config)), "seed": args.seed,
            "precision": args.amp}


def resolved(text, path):
    """Return the config that a result was of, with the defaults that results of earlier versions do not hold."""
    from tools.engine.resolve import resolve

    try:
        given = json.loads(text) if isinstance(text, str) else text
        return plain(resolve(checked(given), path))
    except (ConfigError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}): remove it, and the fold is run again") from error


def find_folds(runs):
    """Raise DataError, before anything is trained, unless the data of every one of ``runs`` is there."""
    missing = []
    for args in runs:
        config = load_config(args.config, args.set)
        apply_data_flags(config, args)
        for section in config.dataset.values():
            if section.get("_base_", {}).get("NAME") == "ModelNetFewShot":
                path = fold_path(section._base_.DATA_PATH, args.way, args.shot, args.fold)
                missing += [path] if not path.is_file() and path not in missing else []
    if missing:
        raise DataError(f"{missing[0]} does not exist, nor do {len(missing) - 1} other folds: make them with python -m "
                        f"datasets.generate_few_shot_data")


def summary(results):
    """Return the lines of the table: mean ± standard deviation over the folds of each way and shot."""
    rows = [["way", "shot", "folds", "last OA, %", "best OA, %"]]
    for (way, shot), folds in results.items():
        spread = [f"{statistics.fmean(values):.1f} ± {statistics.pstdev(values):.1f}"
                  for values in ([fold[name] for fold in folds] for name in ("last", "best"))]
        rows.append([str(way), str(shot), str(len(folds)), *spread])
    return align(rows, left=0)


def parse(argv=None):
    parser = ArgumentParser(
        description="Run all folds of few-shot classification; further options are those of main.py.")
    add = parser.add_argument
    add("--ways", type=positive, nargs="+", default=[5, 10], metavar="N")
    add("--shots", type=positive, nargs="+", default=[10, 20], metavar="N")
    add("--folds", type=positive, default=10, metavar="N", help="folds 0 … N - 1 are run")
    add("--exp_name", default="few_shot", metavar="NAME", help="name of the experiment's folder")
    own, others = parser.parse_known_args(argv)
    for flag in ("--way", "--shot", "--fold"):
        if flag in others:
            raise ConfigError(f"{flag} is for main.py; here give {flag}s")
    return own, others


def main():
    own, others = parse()
    check_alone("tools/few_shot.py")
    if not {"--scratch_model", "--finetune_model"} & set(others):
        others.append("--finetune_model")
    runs = [main_arguments([*others, "--way", str(way), "--shot", str(shot), "--fold", str(fold), "--exp_name",
                            f"{own.exp_name}/{way}way_{shot}shot/{fold}"])
            for way in own.ways for shot in own.shots for fold in range(own.folds)]
    find_folds(runs)
    results = {}
    for args in runs:
        results.setdefault((args.way, args.shot), []).append(run_fold(args))
    print(f"\n{summary(results)}")


if __name__ == "__main__":
    run_command(main)
