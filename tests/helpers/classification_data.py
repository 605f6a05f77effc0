"""Small made-up data in the file formats, and the folders, of the real classification data sets."""
import pickle

import h5py
import numpy as np

from datasets.class_names import MODELNET40

SCAN_FILES = ("objectdataset", "objectdataset_augmentedrot_scale75")


def clouds(rng, count, points, channels=3):
    """Return clouds (count, points, channels): boxes of random proportions."""
    cloud = rng.uniform(-1, 1, (count, points, channels)).astype(np.float32)
    cloud[:, :, :3] *= rng.uniform(0.2, 1, (count, 1, 3))
    return cloud


def write_modelnet(root, count=4, points=8192):
    """Write the published pickles of ModelNet40, and its lists."""
    folder = root / "data" / "ModelNet" / "modelnet40_normal_resampled"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    (folder / "modelnet40_shape_names.txt").write_text("\n".join(MODELNET40))
    for subset in ("train", "test"):
        labels = [np.array([index % 40], np.int32) for index in range(count)]
        ids = [f"{MODELNET40[index % 40]}_{index:04}" for index in range(count)]
        (folder / f"modelnet40_{subset}.txt").write_text("\n".join(ids))
        with open(folder / f"modelnet40_{subset}_{points}pts_fps.dat", "wb") as file:
            pickle.dump([list(clouds(rng, count, points, 6)), labels], file)


def write_scanobjectnn(root, count=4, points=2048):
    """Write the HDF5 files of the three variants of ScanObjectNN."""
    rng = np.random.default_rng(0)
    for folder in ("main_split", "main_split_nobg"):
        path = root / "data" / "ScanObjectNN" / "h5_files" / folder
        path.mkdir(parents=True)
        for name in SCAN_FILES:
            for subset in ("training", "test"):
                with h5py.File(path / f"{subset}_{name}.h5", "w") as file:
                    file["data"], file["label"] = clouds(rng, count, points), np.arange(count) % 15


def write_modelnet_hdf5(root, count=8, points=2048):
    """Write a file of each subset of ``modelnet40_ply_hdf5_2048``."""
    folder = root / "data" / "ModelNet" / "modelnet40_ply_hdf5_2048"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for subset in ("train", "test"):
        with h5py.File(folder / f"ply_data_{subset}0.h5", "w") as file:
            file["data"], file["label"] = clouds(rng, count, points), np.arange(count)[:, None] % 40


def write_few_shot(root, way=5, shot=2, folds=1, points=8192, tests=1):
    """Write folds of few-shot data."""
    folder = root / "data" / "ModelNetFewshot" / f"{way}way_{shot}shot"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for fold in range(folds):
        content = {subset: [(cloud, label, 3 * label + fold) for label in range(way)
                            for cloud in clouds(rng, count, points)]
                   for subset, count in (("train", shot), ("test", tests))}
        with open(folder / f"{fold}.pkl", "wb") as file:
            pickle.dump(content, file)


def write_shapenet(root, count=4, points=2048):
    """Write clouds and lists in the folders of ShapeNet-55."""
    lists, folder = root / "data" / "ShapeNet55-34" / "ShapeNet-55", root / "data" / "ShapeNet55-34" / "shapenet_pc"
    lists.mkdir(parents=True)
    folder.mkdir()
    rng = np.random.default_rng(0)
    for subset in ("train", "test"):
        names = [f"{('02691156', '03001627')[index % 2]}-{subset}{index}.npy" for index in range(count)]
        (lists / f"{subset}.txt").write_text("\n".join(names))
        for name, cloud in zip(names, clouds(rng, count, points), strict=True):
            np.save(folder / name, cloud)
