import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.interface import Loadable
from utils import checkpoint
from utils.errors import CheckpointError


class Student(Loadable):
    weight_prefixes = ("inner.",)
    optional_weights = ("head.",)
    unused_weights = ("decoder.",)

    def __init__(self, width=3):
        super().__init__()
        self.body = nn.Linear(width, 2)
        self.head = nn.Linear(2, 1)


def test_what_is_saved_is_read(tmp_path):
    weights = {"module.a": torch.arange(3.0)}
    checkpoint.save({"base_model": weights, "epoch": 3, "metrics": {"acc": 1.5}}, tmp_path / "c.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["c.pth"]
    read = checkpoint.read(tmp_path / "c.pth")
    assert (read["epoch"], read["metrics"]) == (3, {"acc": 1.5})
    assert checkpoint.read_weights(tmp_path / "c.pth")["a"].tolist() == [0, 1, 2]


def test_a_failed_save_leaves_the_old_file(tmp_path):
    checkpoint.save({"a": torch.ones(1)}, tmp_path / "c.pth")
    with pytest.raises(Exception, match="pickle"):
        checkpoint.save({"a": lambda: 0}, tmp_path / "c.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["c.pth"]
    assert checkpoint.read(tmp_path / "c.pth")["a"].item() == 1


def test_safetensors_and_numpy_scalars(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "c.safetensors")
    assert checkpoint.read_weights(tmp_path / "c.safetensors")["a"].tolist() == [1, 1]
    torch.save({"base_model": {"a": torch.ones(1)}, "metrics": {"acc": np.float64(2.5)}}, tmp_path / "n.pth")
    assert checkpoint.read(tmp_path / "n.pth")["metrics"]["acc"] == 2.5


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04" + b"\0" * 80])
def test_damaged_files(tmp_path, suffix, content):
    path = tmp_path / f"bad.{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"bad.{suffix} is damaged or not a checkpoint"):
        checkpoint.read(path)


def test_a_truncated_checkpoint(tmp_path):
    checkpoint.save({"base_model": {"a": torch.ones(1000)}}, tmp_path / "c.pth")
    whole = (tmp_path / "c.pth").read_bytes()
    (tmp_path / "c.pth").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(CheckpointError, match="c.pth is damaged"):
        checkpoint.read(tmp_path / "c.pth")


def test_no_code_is_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    (tmp_path / "c.pth").write_bytes(pickle.dumps({"base_model": Bomb()}))
    with pytest.raises(CheckpointError, match="c.pth is not a checkpoint: it is a pickle that torch.save has not"):
        checkpoint.read(tmp_path / "c.pth")
    torch.save({"base_model": {"a": torch.ones(1)}, "x": Bomb()}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="c.pth is refused: it calls io.open, and no code of a file is run"):
        checkpoint.read(tmp_path / "c.pth")
    assert not (tmp_path / "ran").exists()


def test_absent_and_empty(tmp_path):
    with pytest.raises(CheckpointError, match="absent.pth does not exist"):
        checkpoint.read(tmp_path / "absent.pth")
    checkpoint.save({"epoch": 1}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="holds no model weights"):
        checkpoint.read_weights(tmp_path / "c.pth")


def test_loading_a_pretrained_student():
    model = Student()
    weights = {"inner.body.weight": torch.ones(2, 3), "inner.body.bias": torch.full((2,), 2.0),
               "decoder.weight": torch.ones(1)}
    report = checkpoint.load_model(model, weights, "x.pth")
    assert report == "x.pth: 2 of 4 weights match, 2 missing, 1 unexpected, 0 of another shape"
    assert model.body.bias.tolist() == [2, 2]


@pytest.mark.parametrize(("change", "counts"), [
    ({"body.bias": None}, "3 of 4 weights match, 1 missing, 0 unexpected, 0 of another shape"),
    ({"other": torch.ones(1)}, "4 of 4 weights match, 0 missing, 1 unexpected, 0 of another shape"),
    ({"body.bias": torch.ones(5)}, "3 of 4 weights match, 0 missing, 0 unexpected, 1 of another shape"),
])
def test_a_checkpoint_of_another_model_is_refused_with_counts(change, counts):
    weights = {key: value for key, value in {**Student().state_dict(), **change}.items() if value is not None}
    with pytest.raises(CheckpointError, match=f"x.pth is not of this Student: {counts}"):
        checkpoint.load_model(Student(), weights, "x.pth")
