"""Train the segmentation of S3DIS: ``python main.py --ckpts FILE --root DIR`` here, or ``python -m
semantic_segmentation.main`` from the project's folder."""
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from utils.command import run_command  # noqa: E402 - the script's folder is on the path, the project's is not
from utils.segmentation_parser import segmentation_arguments  # noqa: E402

CONFIG = ROOT / "cfgs" / "semantic_segmentation" / "s3dis.yaml"


def main():
    args = segmentation_arguments(CONFIG, areas=True)
    from tools.tasks.segmentation import RoomSegmentation, train

    train(args, RoomSegmentation)


if __name__ == "__main__":
    run_command(main)
