"""Classify clouds and meshes: ``python tools/predict.py --config FILE --ckpts FILE CLOUD…``."""
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.engine.inference import Predictor, add_arguments, each_file  # noqa: E402 - the script's folder is on the path
from utils.command import run_command  # noqa: E402
from utils.errors import CheckpointError  # noqa: E402
from utils.parser import ArgumentParser, positive  # noqa: E402


def top_classes(probability, names, count):
    """Return the ``count`` most probable classes as a list of {"class", "probability"}, the first the likeliest."""
    value, index = probability.topk(min(count, len(names)))
    return [{"class": names[i], "probability": round(p, 6)}
            for i, p in zip(index.tolist(), value.tolist(), strict=True)]


def parse(argv=None):
    parser = ArgumentParser(description="Classify clouds and meshes by a fine-tuned checkpoint.")
    add_arguments(parser)
    parser.add_argument("--top", type=positive, default=3, metavar="N", help="classes to print")
    parser.add_argument("--json", action="store_true", help="print one JSON object a file")
    return parser.parse_args(argv)


def main():
    args = parse()
    model = Predictor(args)
    if not model.has_head:
        raise CheckpointError(f"checkpoint {args.ckpts} has no classification head: fine-tune it first (main.py "
                              f"--finetune_model), or use tools/extract_features.py")

    def show(file, points):
        top = top_classes(model.probabilities(points), model.class_names, args.top)
        if args.json:
            print(json.dumps({"file": str(file), "classes": top}), flush=True)
        else:
            print(f"{file}: " + ", ".join(f"{entry['class']} {100 * entry['probability']:.1f} %" for entry in top),
                  flush=True)

    def refuse(file, reason):
        if args.json:
            print(json.dumps({"file": str(file), "error": reason}), flush=True)

    sys.exit(1 if each_file(args, model, show, refuse) else 0)


if __name__ == "__main__":
    run_command(main)
