"""All folds of few-shot classification: ``python tools/few_shot.py --config FILE --ckpts FILE [main.py's options]``.

Every fold is a fine-tuning of its own, in ``<exp_name>/<way>way_<shot>shot/<fold>/``; a fold whose ``result.json`` is
there is not run again. In the end stands the mean over the folds, with the standard deviation.
"""
import argparse
import json
import pathlib
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from utils.command import run_command  # noqa: E402 - the script's folder is on the path, the project's is not
from utils.config import replace_text  # noqa: E402
from utils.metrics import align  # noqa: E402
from utils.parser import main_arguments  # noqa: E402


def run_fold(args):
    """Fine-tune on one fold, or read what came out of it before; returns the last and the best OA in percent."""
    path = args.folder / "result.json"
    if path.is_file():
        return json.loads(path.read_text())
    from tools import runner_finetune

    progress = runner_finetune.run(args)
    result = {"last": progress.metrics["OA"], "best": progress.best["OA"]["OA"]}
    replace_text(path, json.dumps(result) + "\n")
    return result


def summary(results):
    """Return the lines of the table: mean ± standard deviation over the folds of each way and shot."""
    rows = [["way", "shot", "folds", "last OA, %", "best OA, %"]]
    for (way, shot), folds in results.items():
        spread = [f"{statistics.fmean(values):.1f} ± {statistics.pstdev(values):.1f}"
                  for values in ([fold[name] for fold in folds] for name in ("last", "best"))]
        rows.append([str(way), str(shot), str(len(folds)), *spread])
    return align(rows, left=0)


def parse(argv=None):
    parser = argparse.ArgumentParser(
        description="Run all folds of few-shot classification; further options are those of main.py.")
    add = parser.add_argument
    add("--ways", type=int, nargs="+", default=[5, 10], metavar="N")
    add("--shots", type=int, nargs="+", default=[10, 20], metavar="N")
    add("--folds", type=int, default=10, metavar="N")
    add("--exp_name", default="few_shot", metavar="NAME", help="name of the experiment's folder")
    return parser.parse_known_args(argv)


def main():
    own, others = parse()
    if not {"--scratch_model", "--finetune_model"} & set(others):
        others.append("--finetune_model")
    results = {}
    for way in own.ways:
        for shot in own.shots:
            for fold in range(own.folds):
                args = main_arguments([*others, "--way", str(way), "--shot", str(shot), "--fold", str(fold),
                                       "--exp_name", f"{own.exp_name}/{way}way_{shot}shot/{fold}"])
                results.setdefault((way, shot), []).append(run_fold(args))
    print(f"\n{summary(results)}")


if __name__ == "__main__":
    run_command(main)
