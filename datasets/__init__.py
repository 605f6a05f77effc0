"""Data sets by their registry names."""
from datasets.build import DATASETS, build_dataset_from_cfg
from datasets.few_shot import ModelNetFewShot
from datasets.modelnet import ModelNet
from datasets.modelnet_hdf5 import ModelNet40_SVM, ModelNetHDF5
from datasets.point_folder import PointFolder
from datasets.s3dis import S3DIS
from datasets.scanobjectnn import ScanObjectNN, ScanObjectNN_hardest
from datasets.shapenet import ShapeNet
from datasets.shapenet_part import ShapeNetPart
from datasets.shapes import Shapes

__all__ = ["DATASETS", "ModelNet", "ModelNet40_SVM", "ModelNetFewShot", "ModelNetHDF5", "PointFolder", "S3DIS",
           "ScanObjectNN", "ScanObjectNN_hardest", "ShapeNet", "ShapeNetPart", "Shapes", "build_dataset_from_cfg"]
