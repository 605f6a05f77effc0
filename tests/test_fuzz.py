"""Damaged files of every format: each ends well or in an error for people, never in anything else, and runs no code.

Files that a grammar makes, whose right content is known, are read as that or refused, never as something else.
"""
import json
import pickle
import struct
import warnings

import h5py
import numpy as np
import pytest
import torch
import trimesh
import yaml
from point_grammars import GRAMMARS
from safetensors.torch import save_file

from datasets.io.arrays import load_npy
from datasets.io.h5_files import read_h5
from datasets.io.lists import read_lines
from datasets.io.mesh import Mesh
from datasets.io.point_files import read_file, read_points
from datasets.io.safe_pickle import load_pickle
from datasets.pack import PackedClouds, pack_folder
from datasets.s3dis_room import read_room
from datasets.shapenet_part import read_list, read_object
from semantic_segmentation.prepare_s3dis import read_annotation
from utils import checkpoint
from utils.config import load_config
from utils.errors import UserError

pytestmark = pytest.mark.slow

MUTATIONS = 50  # of each format
GENERATED = 700  # files of each grammar
LEAST_READ = {"txt": 0.6, "ply": 1, "off": 1, "obj": 1}  # of the right files; some text clouds are ambiguous
CLOUD = np.random.default_rng(0).random((40, 3)).astype(np.float32)
CONFIG = {"optimizer": {"type": "AdamW", "kwargs": {"lr": 0.001}}, "total_bs": 2, "max_epoch": 1,
          "scheduler": {"type": "CosLR", "kwargs": {"epochs": 2}}, "model": {"NAME": "PointTransformer", "depth": 2},
          "dataset": {"train": {"_base_": {"NAME": "Shapes"}, "others": {"subset": "train"}}}}


def write_pcd(path):
    path.write_bytes(b"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nPOINTS 40\nDATA binary\n" + CLOUD.tobytes())


def write_compressed_pcd(path):
    data = CLOUD.T.tobytes()
    packed = b"".join(bytes([len(data[i:i + 32]) - 1]) + data[i:i + 32] for i in range(0, len(data), 32))
    path.write_bytes(b"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nPOINTS 40\nDATA binary_compressed\n"
                     + struct.pack("<II", len(packed), len(data)) + packed)


def write_h5(path):
    with h5py.File(path, "w") as file:
        file["data"], file["label"] = CLOUD.reshape(4, 10, 3), np.arange(4)


def write_packed(path):
    np.save(path.parent / "02691156-a.npy", CLOUD)
    pack_folder(path.parent).rename(path)


def write_pickle(path):
    path.write_bytes(pickle.dumps([[CLOUD, CLOUD], [np.array([1], np.int32)] * 2]))


def write_list(path):
    folder = path.parent / "train_test_split"
    folder.mkdir()
    (folder / "shuffled_test_file_list.json").write_text(json.dumps(["shape_data/02691156/a", "shape_data/02691156/b"]))
    path.write_text("x")


def read_packed(path):
    clouds = PackedClouds(path)
    return [clouds.read(name) for name in clouds.rows]


def read_parts(path):
    folder = path.parent / "train_test_split"
    (folder / "shuffled_test_file_list.json").write_bytes(path.read_bytes())
    return read_list(path.parent, "test", {"02691156": 0})


def original_list(path):
    write_list(path)
    path.write_bytes((path.parent / "train_test_split" / "shuffled_test_file_list.json").read_bytes())


def mesh(path):
    trimesh.creation.icosphere(1).export(path)


FORMATS = {
    "config.yaml": (lambda path: path.write_text(yaml.safe_dump(CONFIG)), load_config),
    "list.txt": (lambda path: path.write_text("airplane_0001\nbed_0002\n" * 9),
                 lambda path: read_lines(path, "advice")),
    "cloud.npy": (lambda path: np.save(path, CLOUD), load_npy),
    "cloud.npz": (lambda path: np.savez(path, points=CLOUD), read_points),
    "data.h5": (write_h5, lambda path: read_h5(path, "advice")),
    "cloud.txt": (lambda path: np.savetxt(path, CLOUD), read_points),
    "cloud.ply": (mesh, read_points), "cloud.obj": (mesh, read_points), "cloud.off": (mesh, read_points),
    "cloud.stl": (mesh, read_points), "cloud.glb": (mesh, read_points),
    "cloud.pcd": (write_pcd, read_points), "packed.pcd": (write_compressed_pcd, read_points),
    "cache.dat": (write_pickle, load_pickle),
    "weights.pth": (lambda path: torch.save({"base_model": {"a": torch.ones(9)}, "epoch": 1}, path),
                    checkpoint.read_weights),
    "weights.safetensors": (lambda path: save_file({"a": torch.ones(9)}, path), checkpoint.read_weights),
    "packed.bin": (write_packed, read_packed),
    "room.npy": (lambda path: np.save(path, np.tile(np.arange(7.0), (40, 1))), lambda path: read_room(path, 13)),
    "object.txt": (lambda path: np.savetxt(path, np.column_stack([CLOUD, CLOUD, np.zeros(40)])),
                   lambda path: read_object(path, "Airplane")),
    "parts.json": (original_list, read_parts),
    "ceiling_1.txt": (lambda path: np.savetxt(path, np.column_stack([CLOUD, CLOUD])), read_annotation),
}


def mutate(content, rng):
    """Return ``content`` cut off, with bytes changed, a piece doubled, a piece removed, or all of this."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        kind, place = rng.integers(5), int(rng.integers(len(content))) if content else 0
        length = int(rng.integers(1, 30))
        if kind == 0:
            content = content[:place]
        elif kind == 1:
            content[place:place + length] = rng.integers(0, 256, length, np.uint8).tobytes()
        elif kind == 2:
            content[place:place] = content[place:place + length]
        elif kind == 3:
            del content[place:place + length]
        else:
            content[place:place + 1] = bytes([rng.choice(list(b"\x00\xff-9e{}[]:,\n \t.\"'&*"))])
    return bytes(content)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_end_in_clear_errors(tmp_path, name):
    write, read = FORMATS[name]
    path = tmp_path / name
    write(path)
    original = path.read_bytes()
    read(path)
    rng = np.random.default_rng(len(name))
    failed = 0
    for _ in range(MUTATIONS):
        path.write_bytes(mutate(original, rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(path)
        except UserError as error:
            failed += bool(str(error))
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error}; the file: {path.read_bytes()[:300]!r}")
    assert failed or name in ("list.txt", "cloud.npy")


def test_there_are_enough():
    assert MUTATIONS * len(FORMATS) >= 500
    assert GENERATED * len(GRAMMARS) >= 2000


@pytest.mark.parametrize("kind", GRAMMARS)
def test_generated_files_are_read_right_or_refused(tmp_path, kind):
    path, right, read = tmp_path / f"a.{kind}", 0, 0
    for seed in range(GENERATED):
        content, points, triangles = GRAMMARS[kind](np.random.default_rng(seed))
        path.write_bytes(content)
        right += points is not None
        try:
            result = read_file(path)
        except UserError:
            continue
        read += 1
        vertices = result.vertices if isinstance(result, Mesh) else result
        found = [tuple(corners) for corners in result.triangles.tolist()] if isinstance(result, Mesh) else []
        assert points is not None, f"seed {seed}: damage was not seen in {content!r}"
        assert vertices.shape == points.shape, f"seed {seed}: {content!r}"
        assert np.allclose(vertices, points, rtol=1e-6, atol=1e-6), f"seed {seed}: {content!r}"
        assert sorted(found) == sorted(triangles), f"seed {seed}: {content!r}"
    assert read >= LEAST_READ[kind] * right
