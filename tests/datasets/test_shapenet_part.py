import json

import pytest
from segmentation_data import write_parts

from datasets import ShapeNetPart
from utils.errors import DataError


@pytest.fixture
def root(tmp_path):
    return write_parts(tmp_path / "parts")


def build(root, subset="train"):
    return ShapeNetPart(ROOT=root, subset=subset, npoints=64)


def test_training_takes_the_train_and_val_lists(root):
    train, test = build(root), build(root, "test")
    assert (len(train), len(test)) == (8, 6)
    assert train.labels.tolist() == [0, 0, 0, 2, 2, 2, 0, 2]
    points, category, label = test[4]
    assert (points.shape, category, label.shape) == ((64, 3), 2, (64,))
    assert set(label.tolist()) == {6, 7}
    assert test[4][0].equal(points)
    first = train[0][0]
    train.set_epoch(1)
    assert not train[0][0].equal(first)


def test_points_keep_their_parts(root):
    points, _, label = build(root, "test")[4]
    upper = points[label == 7, 1].min()
    assert points[label == 6, 1].max() < upper


@pytest.mark.parametrize("front", [b"\xef\xbb\xbf", "# Gebäude\r\n".encode("latin-1"), "# 椅子\n".encode("gbk")])
def test_encodings_of_objects(root, front):
    points = build(root, "test").clouds[0][0]
    for path in root.glob("*/test*.txt"):
        path.write_bytes(front + path.read_bytes())
    assert (build(root, "test").clouds[0][0] == points).all()


def rewrite(root, change):
    path = root / "02000002" / "test1.txt"
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(("change", "message"), [
    (lambda text: text.replace("6.000000\n", "9.000000\n"),
     "test1.txt has parts 9, but those of the category Cap are 6"),
    (lambda text: "1 2 3\n", "holds 1 lines of 3 numbers, not lines of 7"),
    (lambda text: "a b\n", "is not a file of numbers"),
    (lambda text: "", "test1.txt .*(holds|is not)"),
])
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_bad_objects(root, change, message):
    rewrite(root, change)
    with pytest.raises(DataError, match=message):
        build(root, "test")


def test_bad_lists(root, tmp_path):
    path = root / "train_test_split" / "shuffled_test_file_list.json"
    path.write_text(json.dumps(["shape_data/02000002/../../x"]))
    with pytest.raises(DataError, match="is not a name inside"):
        build(root, "test")
    path.write_text(json.dumps(["shape_data/02000002/absent"]))
    with pytest.raises(DataError, match=r"absent.txt does not exist \(1 of 1 listed files is missing\)"):
        build(root, "test")
    path.write_text("[")
    with pytest.raises(DataError, match="is damaged or not a list"):
        build(root, "test")
    (root / "synsetoffset2category.txt").write_text("Boat 1")
    with pytest.raises(DataError, match="'Boat 1' is not a line like"):
        build(root, "test")
    with pytest.raises(DataError, match="synsetoffset2category.txt does not exist: see 'ShapeNetPart'"):
        build(tmp_path)
