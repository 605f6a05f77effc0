"""Files of torch.save that hold more than weights, are damaged, or are something else."""
import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import os
import pathlib
import pickle
import random
import types
import typing
import uuid

import numpy as np
import pytest
import torch
from easydict import EasyDict
from safetensors.torch import save_file

from utils import checkpoint
from utils.errors import CheckpointError

WEIGHTS = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}


@dataclasses.dataclass
class Settings:
    rate: float = 0.1


class Slots:
    __slots__ = ("value",)

    def __init__(self):
        self.value = 1


class Meter:
    def __getstate__(self):
        return (1, 2)

    def __setstate__(self, state):
        pytest.fail("code of a checkpoint was run")


class OwnDict(dict):
    pass


class OwnList(list):
    pass


class Mode(enum.Enum):
    FAST = 1


Pair = collections.namedtuple("Pair", "a b")

EXTRAS = {
    "Namespace": argparse.Namespace(lr=0.1, path=pathlib.Path("/x"), inner=argparse.Namespace(a=1)),
    "paths": [pathlib.Path("/a"), pathlib.PurePosixPath("b"), pathlib.PureWindowsPath("c:/d")],
    "defaultdict": [collections.defaultdict(list, {"a": [1]}), collections.defaultdict(dict)],
    "containers": [collections.OrderedDict(a=1), collections.Counter("aab"), collections.deque([1], 3),
                   collections.deque(), {1, 2}, frozenset({1}), Pair(1, 2), bytearray(b"x"), b"y", slice(1), range(3)],
    "EasyDict": [EasyDict({"model": {"NAME": "x", "list": [1, {"z": 2}]}}), EasyDict()],
    "own containers": [OwnDict(a=1), OwnList([1])],
    "random states": [np.random.get_state(), np.random.RandomState(0), np.random.default_rng(0), random.getstate(),
                      random.Random(0), torch.get_rng_state(), torch.Generator()],
    "objects": [Settings(), Slots(), Meter(), types.SimpleNamespace(a=1), torch.nn.Linear(2, 2)],
    "times and numbers": [datetime.datetime(2023, 1, 1), datetime.timedelta(1), decimal.Decimal("1.5"), 1j, 2 ** 100,
                          uuid.UUID(int=1)],
    "functions and classes": [np.mean, np.float32, dict, len, torch.float32, torch.device("cpu"), ..., type(None)],
    "arrays of other types": [np.zeros(2, [("a", "f4")]), np.array([{}], object), np.array(["2020"], "M8[D]"),
                              np.dtype("f4"), np.ma.array([1, 2], mask=[0, 1]), np.datetime64("2020-01-01")],
    "partial functions": functools.partial(max, 1),
    "type hints": [typing.Any, typing.Optional[int], int | None, list[int], dict[str, typing.Any]],  # noqa: UP045
}


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("name", EXTRAS)
def test_what_lies_beside_the_weights_does_not_matter(tmp_path, name, new):
    torch.save({"args": EXTRAS[name], "base_model": WEIGHTS, "epoch": 3, "again": [EXTRAS[name]]}, tmp_path / "c.pth",
               _use_new_zipfile_serialization=new)
    if name == "objects" and not new:
        with pytest.raises(CheckpointError, match="c.pth holds a whole model, not its weights"):
            checkpoint.read(tmp_path / "c.pth")
        return
    assert checkpoint.read(tmp_path / "c.pth")["epoch"] == 3
    weights = checkpoint.read_weights(tmp_path / "c.pth")
    assert {key: value.tolist() for key, value in weights.items()} == {
        key: value.tolist() for key, value in WEIGHTS.items()}


@pytest.mark.parametrize("array", [
    np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array([True, False]),
    np.array(["chair", "x"]), np.array([b"ab"]), np.arange(3, dtype=">i4"), np.array([1j]), np.array(3.0), np.array([]),
    np.zeros((0, 3)), np.float16(2), np.bool_(True), np.int64(3), np.str_("x")])
def test_numpy_values_are_kept(tmp_path, array):
    torch.save({"base_model": WEIGHTS, "metrics": {"x": array}}, tmp_path / "c.pth")
    read = checkpoint.read(tmp_path / "c.pth")["metrics"]["x"]
    assert np.array_equal(read, array)
    assert (read.shape, read.dtype) == (array.shape, pickle.loads(pickle.dumps(array)).dtype)


def test_items_of_containers_are_kept(tmp_path):
    torch.save({"base_model": WEIGHTS, "notes": EXTRAS["EasyDict"][0], "list": OwnList([1, 2])}, tmp_path / "c.pth")
    read = checkpoint.read(tmp_path / "c.pth")
    assert read["notes"] == {"model": {"NAME": "x", "list": [1, {"z": 2}]}}
    assert read["list"] == [1, 2]
    torch.save(collections.defaultdict(dict, base_model=WEIGHTS), tmp_path / "c.pth")
    assert checkpoint.read_weights(tmp_path / "c.pth").keys() == WEIGHTS.keys()


@pytest.mark.parametrize(("make", "message"), [
    (lambda: torch.nn.Linear(2, 2), "holds an object of the class torch.nn.modules.linear.Linear, not weights"),
    (lambda: {"model": torch.nn.Linear(2, 2)}, "holds as 'model' an object of the class torch.nn.*Linear, not weights"),
    (lambda: {"model": {"w": np.ones(2), **WEIGHTS}}, "holds the weight 'w' as a numpy array; it must be a tensor"),
    (lambda: {"model": {"w": Settings(), **WEIGHTS}}, "holds the weight 'w' as a .*Settings; it must be a tensor"),
    (lambda: {"base_model": WEIGHTS, "mode": Mode.FAST}, "is refused: it calls .*Mode, and no code of a file is run"),
])
def test_the_class_is_said_of_what_does_not_load(tmp_path, make, message):
    torch.save(make(), tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=f"c.pth {message}") as error:
        checkpoint.read_weights(tmp_path / "c.pth")
    assert "damaged" not in str(error.value)


def test_a_whole_model_beside_a_state_dict(tmp_path):
    torch.save({"model": torch.nn.Linear(2, 2), "state_dict": WEIGHTS}, tmp_path / "c.pth")
    assert checkpoint.read_weights(tmp_path / "c.pth").keys() == WEIGHTS.keys()


# ---- damage, and what is none

def test_a_changed_byte_of_a_weight(tmp_path):
    """torch itself reads such a file without a word."""
    path = tmp_path / "c.pth"
    torch.save({"base_model": {"a": torch.arange(1000.0)}}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(1000.0).numpy().tobytes()) + 400] ^= 1
    path.write_bytes(content)
    assert torch.load(path)["base_model"]["a"][100] != 100
    with pytest.raises(CheckpointError, match="c.pth is damaged: Bad CRC-32 for file 'c/data/0'"):
        checkpoint.read(path)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_off(tmp_path, share, new):
    path = tmp_path / "c.pth"
    torch.save({"args": argparse.Namespace(), "base_model": {"a": torch.ones(1000)}}, path,
               _use_new_zipfile_serialization=new)
    path.write_bytes(path.read_bytes()[:int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="c.pth is damaged"):
        checkpoint.read(path)


def test_a_file_without_check_sums(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"base_model": WEIGHTS, "args": EXTRAS["Namespace"]}, tmp_path / "c.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert checkpoint.read_weights(tmp_path / "c.pth").keys() == WEIGHTS.keys()


def without_rights(path):
    raise PermissionError(13, "Permission denied", str(path))


def fails_to_read(path):
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize(("fault", "message"), [(without_rights, "cannot be read: Permission denied"),
                                                (fails_to_read, "cannot be read: Input/output error")])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path, monkeypatch, fault, message, suffix):
    path = tmp_path / f"c{suffix}"
    checkpoint.save({"base_model": WEIGHTS}, path)
    monkeypatch.setattr("builtins.open", lambda name, *rest: fault(name))
    with pytest.raises(CheckpointError, match=f"c{suffix} {message}") as error:
        checkpoint.read(path)
    assert "damaged" not in str(error.value)


def test_too_little_memory_is_not_called_damage(tmp_path, monkeypatch):
    checkpoint.save({"base_model": WEIGHTS}, tmp_path / "c.pth")

    def load(*_, **__):
        raise MemoryError

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(CheckpointError, match="c.pth does not fit into memory"):
        checkpoint.read(tmp_path / "c.pth")


def torchscript(path):
    class Whole(torch.nn.Module):
        def forward(self, x):
            return x

    torch.jit.script(Whole()).save(str(path))


def npz(path):
    with open(path, "wb") as file:
        np.savez(file, a=np.ones(3))


OTHERS = {
    "a folder": (lambda path: path.mkdir(), "is a folder: give the file in it"),
    "TorchScript": (torchscript, "is a TorchScript archive, which holds code: write its state dict"),
    "a plain pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "is not a checkpoint: it is a pickle"),
    "npz": (npz, "is not a checkpoint, but a zip file of something"),
    "Git LFS": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
                "is not a checkpoint, but what Git LFS keeps in its place"),
    "a web page": (lambda path: path.write_text("\n<!DOCTYPE html><html>"), "is not a checkpoint, but a web page"),
    "another protocol": (lambda path: torch.save({"base_model": WEIGHTS}, path, pickle_protocol=4),
                         "was written with a pickle protocol that has no safe reader"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_called_what_they_are(tmp_path, name):
    write, message = OTHERS[name]
    write(tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=f"c.pth {message}") as error:
        checkpoint.read(tmp_path / "c.pth")
    assert "damaged" not in str(error.value)
    assert "\n" not in str(error.value)


def test_content_counts_not_the_suffix(tmp_path):
    save_file(WEIGHTS, tmp_path / "c.pth")
    torch.save(WEIGHTS, tmp_path / "d.safetensors")
    for name in ("c.pth", "d.safetensors"):
        assert checkpoint.read_weights(tmp_path / name).keys() == WEIGHTS.keys()


# ---- no code runs

class Bomb:
    def __init__(self, call, *args):
        self.call = call, args

    def __reduce__(self):
        return self.call


class Late:
    """An object of a plain class whose state brings the call."""

    def __init__(self, bomb):
        self.bomb = bomb


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("wrap", [lambda bomb: bomb, Late, lambda bomb: argparse.Namespace(x=[bomb]),
                                  lambda bomb: collections.defaultdict(list, a=bomb), lambda bomb: OwnDict(a=bomb)])
@pytest.mark.parametrize("call", [os.mkdir, os.system, eval, exec, print, getattr, __import__, pathlib.Path.touch])
def test_calls_among_the_extras_are_refused(tmp_path, monkeypatch, capsys, call, wrap, new):
    monkeypatch.chdir(tmp_path)
    text = {eval: "__import__('os').mkdir('ran')", exec: "import os; os.mkdir('ran')", os.system: "mkdir ran"}
    torch.save({"base_model": WEIGHTS, "args": wrap(Bomb(call, text.get(call, "ran")))}, "c.pth",
               _use_new_zipfile_serialization=new)
    with pytest.raises(CheckpointError, match="c.pth is refused: "):
        checkpoint.read("c.pth")
    assert not pathlib.Path("ran").exists()
    assert "ran" not in capsys.readouterr().out
