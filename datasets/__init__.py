"""Data sets by their registry names."""
from datasets.build import DATASETS, build_dataset_from_cfg
from datasets.few_shot import ModelNetFewShot
from datasets.modelnet import ModelNet
from datasets.point_folder import PointFolder
from datasets.scanobjectnn import ScanObjectNN, ScanObjectNN_hardest
from datasets.shapenet import ShapeNet
from datasets.shapes import Shapes

__all__ = ["DATASETS", "ModelNet", "ModelNetFewShot", "PointFolder", "ScanObjectNN", "ScanObjectNN_hardest",
           "ShapeNet", "Shapes", "build_dataset_from_cfg"]
