"""Test on ShapeNetPart, plain and voting: ``python main_test.py --ckpts FILE --root DIR [--visual]``."""
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from utils.command import run_command  # noqa: E402 - the script's folder is on the path, the project's is not
from utils.segmentation_parser import segmentation_arguments  # noqa: E402

CONFIG = ROOT / "cfgs" / "part_segmentation" / "shapenetpart.yaml"


def main():
    args = segmentation_arguments(CONFIG, test=True)
    from part_segmentation import testing

    testing.test(args)


if __name__ == "__main__":
    run_command(main)
