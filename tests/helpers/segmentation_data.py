"""Small made-up S3DIS and ShapeNetPart, raw and prepared, in their real file formats, and flags for a tiny model."""
import json

import numpy as np

from datasets.shapenet_part import PARTS

TINY = ["model.embed_dim=24", "model.encoder_dims=24", "model.depth=3", "model.num_heads=2", "model.taps=[1, 2, 3]",
        "model.num_group=16", "model.group_size=8"]


def flags(root, npoints, *more):
    """Return the flags of a segmentation command on a tiny model; ``--set`` stands last, so values may be added."""
    return ("--root", root, "--npoint", npoints, "--batch_size", 4, "--num_workers", 0, "--device", "cpu", *more,
            "--set", *TINY)


def room_points(rng, points=6000, size=(2.0, 2.5, 3.0)):
    """Return (xyz, label): floor (1) below, ceiling (0) above, table (7) between."""
    xyz = rng.random((points, 3)) * size
    label = rng.choice([0, 1, 7], points)
    xyz[:, 2] = np.choose(np.searchsorted([0, 1, 7], label), [size[2], 0.0, 0.8]) + rng.normal(0, 0.01, points)
    return xyz, label


def write_rooms(folder, areas=(1, 5), points=6000):
    """Write one prepared room an area; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for area in areas:
        xyz, label = room_points(np.random.default_rng(area), points)
        room = np.column_stack([xyz, np.zeros((points, 3)), label])
        np.save(folder / f"Area_{area}_office_1.npy", room)  # float64, as the published preparation writes it
    return folder


def write_raw_rooms(folder, areas=(1, 5), points=3000):
    """Write the raw annotations: floor, ceiling, table, and stairs, which S3DIS has no class for."""
    for area in areas:
        rng = np.random.default_rng(area)
        xyz, label = room_points(rng, points)
        target = folder / f"Area_{area}" / "office_1" / "Annotations"
        target.mkdir(parents=True)
        for name, number in (("ceiling_1", 0), ("floor_1", 1), ("table_1", 7)):
            own = xyz[label == number] + (5, -3, 1)
            rows = np.column_stack([own, rng.integers(0, 256, (len(own), 3))])
            np.savetxt(target / f"{name}.txt", rows, "%.3f %.3f %.3f %d %d %d")
        np.savetxt(target / "stairs_1.txt", [[5, -3, 1, 9, 9, 9]], "%.3f %.3f %.3f %d %d %d")
    return folder


def write_parts(folder, categories=("Airplane", "Cap"), objects=3, points=300):
    """Write ShapeNetPart with ``objects`` objects a category in the training and test lists, one in val."""
    lists = {"train": [], "val": [], "test": []}
    lines = []
    for number, name in enumerate(PARTS):
        synset = f"{2000000 + number:08}"
        lines.append(f"{name}\t{synset}")
        if name not in categories:
            continue
        (folder / synset).mkdir(parents=True)
        for split, count in (("train", objects), ("val", 1), ("test", objects)):
            for index in range(count):
                rng = np.random.default_rng((number, count, index, len(split)))
                xyz = rng.uniform(-1, 1, (points, 3))
                edges = np.linspace(-1, 1, len(PARTS[name]) + 1)[1:-1]
                part = np.array(PARTS[name])[np.searchsorted(edges, xyz[:, 1])]  # a part is a layer
                table = np.column_stack([xyz, np.zeros((points, 3)), part])
                np.savetxt(folder / synset / f"{split}{index}.txt", table, "%.6f")
                lists[split].append(f"shape_data/{synset}/{split}{index}")
    (folder / "synsetoffset2category.txt").write_text("\n".join(lines))
    (folder / "train_test_split").mkdir()
    for split, names in lists.items():
        (folder / "train_test_split" / f"shuffled_{split}_file_list.json").write_text(json.dumps(names))
    return folder
