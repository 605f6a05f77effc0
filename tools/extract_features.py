"""Write features of clouds and meshes: ``python tools/extract_features.py --ckpts FILE --output FILE CLOUD…``."""
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.engine.inference import Predictor, add_arguments, each_file  # noqa: E402 - the script's folder is on the path
from utils.command import run_command  # noqa: E402
from utils.errors import DataError, UserError  # noqa: E402
from utils.files import check_writable, replacing  # noqa: E402
from utils.parser import ArgumentParser  # noqa: E402


def parse(argv=None):
    parser = ArgumentParser(description="Write the features of clouds and meshes to an .npz file: 'features' "
                                                 "(N, C) float32 and 'names' (N,).")
    add_arguments(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="the .npz file to write")
    return parser.parse_args(argv)


def main():
    args = parse()
    check_writable(args.output)
    model, names, features = Predictor(args, head=False), [], []

    def keep(file, points):
        features.append(model.features(points).numpy())
        names.append(str(file))

    failed = each_file(args, model, keep)
    if not features:
        raise DataError("no file could be read: nothing is written")
    try:
        with replacing(args.output) as file:
            np.savez(file, features=np.stack(features), names=np.array(names))
    except OSError as error:
        raise UserError(f"{args.output} cannot be written: {error.strerror}") from error
    print(f"{args.output}: features {np.stack(features).shape} of {len(names)} files")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    run_command(main)
