"""Data sets by their registry names."""
from datasets.build import DATASETS, build_dataset_from_cfg
from datasets.modelnet import ModelNet
from datasets.shapenet import ShapeNet
from datasets.shapes import Shapes

__all__ = ["DATASETS", "ModelNet", "ShapeNet", "Shapes", "build_dataset_from_cfg"]
