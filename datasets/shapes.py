"""The embedded data set: procedural objects that need no download."""
import numpy as np
import torch

from datasets.base import PointCloudDataset, Subset
from datasets.build import DATASETS
from datasets.clouds import normalize
from datasets.procedural.objects import RECIPES
from datasets.procedural.primitives import rotation, sample_parts
from utils.key_types import NonNegativeInt, PositiveInt

SIZES = {"train": 1200, "test": 400}
SPARE = 2  # clouds hold this many times npoints; training draws others each epoch
MAX_TILT = 20.0  # degrees
MAX_NOISE = 0.03  # standard deviation, of a unit cloud
MAX_HIDDEN = 0.6  # share of the points that a partial view misses


@DATASETS.register
class Shapes(PointCloudDataset):
    """Twenty classes of solids and composed objects in random proportions and poses, noisy, half of them partial.

    Object ``i`` of a subset depends on ``data_seed`` and ``i`` alone, not on the seed of a run.

    Keys:
        subset: train, or test (also called val).
        npoints: points a cloud.
        size: the number of clouds; null stands for 1,200 in training and 400 in testing.
        samples_per_class: keeps the first few of each class, for few-sample training.
        data_seed: makes another set of objects.
    """

    def __init__(self, *, subset: Subset, npoints: PositiveInt = 1024, size: PositiveInt | None = None,
                 samples_per_class: PositiveInt | None = None, data_seed: NonNegativeInt = 0) -> None:
        super().__init__(subset, npoints)
        size = SIZES[self.subset] if size is None else size
        self.class_names = list(RECIPES)
        labels = np.arange(size) % len(RECIPES)
        if samples_per_class is not None:
            labels = labels[:samples_per_class * len(RECIPES)]
        self.labels = labels.astype(np.int64)
        self.ids = [f"{self.class_names[label]}-{index}" for index, label in enumerate(labels)]
        number = list(SIZES).index(self.subset)
        self.clouds = np.stack([
            make_cloud(self.class_names[label], np.random.default_rng((data_seed, number, index)), SPARE * npoints)
            for index, label in enumerate(labels)])

    def __getitem__(self, index):
        points = self.clouds[index]
        chosen = self.rng(index).permutation(len(points))[:self.npoints]
        return torch.from_numpy(normalize(points[chosen])), int(self.labels[index])


def make_cloud(name, rng, n):
    """Return ``n`` points (n, 3) float32 of a random object of the class ``name``, in the unit sphere."""
    parts = RECIPES[name](rng)
    partial = rng.random() < 0.5
    hidden = rng.uniform(0.2, MAX_HIDDEN) if partial else 0.0
    points = sample_parts(parts, rng, int(np.ceil(n / (1 - hidden))))
    points = points * rng.uniform(0.8, 1.25, 3)
    turn = rotation("y", rng.uniform(0, 360)) @ rotation("x", rng.uniform(-MAX_TILT, MAX_TILT)) \
        @ rotation("z", rng.uniform(-MAX_TILT, MAX_TILT))
    points = normalize(points @ turn.T)
    view = rng.standard_normal(3)
    visible = np.argsort(-points @ view, kind="stable")[:n]  # what lies furthest from the viewer is missed
    points = points[visible] + rng.normal(0, rng.uniform(0, MAX_NOISE), (n, 3))
    return normalize(points).astype(np.float32)
