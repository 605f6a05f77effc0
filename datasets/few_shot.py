"""ModelNetFewShot: the folds of few-shot classification (Sharma & Kaul 2020, as arranged by Point-BERT)."""
import pathlib

import numpy as np

from datasets.base import CloudsInMemory, Subset
from datasets.build import DATASETS
from datasets.clouds import check_cloud
from datasets.io.safe_pickle import load_pickle, whole_number
from utils.errors import ConfigError, DataError
from utils.key_types import NonNegativeInt, PathLike, PositiveInt


def fold_path(folder, way, shot, fold):
    """Return the file of a fold."""
    return pathlib.Path(folder) / f"{way}way_{shot}shot" / f"{fold}.pkl"


@DATASETS.register
class ModelNetFewShot(CloudsInMemory):
    """One fold: ``way`` classes with ``shot`` training clouds each, and others to test on.

    Keys:
        DATA_PATH: the folder with ``<way>way_<shot>shot/<fold>.pkl``.
        N_POINTS: points a cloud there.
        NUM_CATEGORY: classes of the data set that those of a fold were drawn from.
        USE_NORMALS: keeps the normals as channels 3 to 5.
        subset: train, or test (also called val).
        npoints: takes the first points alone.
        way, shot, fold: which fold; they come from the command line.
    """

    source = "make them: python -m datasets.generate_few_shot_data ('Few-shot' in DATASET.md)"

    def __init__(self, *, DATA_PATH: PathLike, N_POINTS: PositiveInt = 8192, NUM_CATEGORY: PositiveInt = 40,
                 USE_NORMALS: bool = False, subset: Subset, npoints: PositiveInt | None = None,
                 way: PositiveInt | None = None, shot: PositiveInt | None = None,
                 fold: NonNegativeInt | None = None) -> None:
        super().__init__(subset, npoints or N_POINTS)
        if way is None or shot is None or fold is None:
            raise ConfigError("few-shot data needs --way, --shot and --fold, for example --way 5 --shot 10 --fold 0")
        self.channels = 6 if USE_NORMALS else 3
        self.path = fold_path(DATA_PATH, way, shot, fold)
        if not self.path.is_file():
            raise DataError(f"{self.path} does not exist: {self.source}")
        self.clouds, labels, classes = self.read(way, NUM_CATEGORY)
        self.labels = np.array(labels, np.int64)
        names = dict(zip(labels, classes, strict=True))
        self.class_names = [f"class {names.get(label, '?')}" for label in range(way)]
        self.ids = [f"{self.path}-{self.subset}-{index}" for index in range(len(labels))]

    def read(self, way, categories):
        """Return the clouds, labels and class numbers of the subset, checked."""
        content = load_pickle(self.path)
        samples = content.get(self.subset) if isinstance(content, dict) else None
        if not isinstance(samples, list) or not samples or any(
                not isinstance(sample, (tuple, list)) or len(sample) != 3 for sample in samples):
            raise DataError(f"{self.path} is not a fold: no list '{self.subset}' of (points, label, class)")
        clouds, labels, classes = [], [], []
        for index, (points, label, number) in enumerate(samples):
            where = f"{self.path}, {self.subset} cloud {index}"
            cloud = check_cloud(points, where, self.npoints)
            if cloud.shape[1] < self.channels:
                raise DataError(f"{where} holds no normals; set USE_NORMALS to false")
            try:
                label, number = whole_number(label), whole_number(number)
            except (ValueError, TypeError, OverflowError) as error:
                raise DataError(f"{where} has a label or class that is not a whole number") from error
            if not 0 <= label < way or not 0 <= number < categories:
                raise DataError(f"{where} has label {label} and class {number}, but there are {way} ways and "
                                f"{categories} classes")
            clouds.append(cloud)
            labels.append(label)
            classes.append(number)
        return clouds, labels, classes
