import builtins
import errno
import pathlib
import pickle
import warnings

import numpy as np
import pytest
from segmentation_data import write_rooms

from datasets import DATASETS
from datasets.s3dis import class_weights, eligible_cells
from datasets.s3dis_room import Room
from utils.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path):
    return write_rooms(tmp_path / "rooms", range(1, 7))


def build(root, subset="train", **keys):
    return DATASETS.build({"NAME": "S3DIS", "ROOT": root, "subset": subset, "npoints": 256, **keys}, "dataset.train")


def test_a_column_holds_what_a_scan_of_the_room_finds(root):
    path = root / "Area_1_office_1.npy"
    room, original = Room(path, 13), np.load(path)
    original[:, :3] -= original[:, :3].min(0)
    assert np.array_equal(room.xyz, original[room.order, :3].astype(np.float32))
    assert np.array_equal(room.label, original[room.order, 6])
    for low, high in (((0.3, 0.4), (1.3, 1.4)), ((-1, -1), (0.2, 9)), ((0.25, 0.5), (0.5, 0.75)), ((5, 5), (6, 6))):
        x, y = room.xyz[:, 0], room.xyz[:, 1]
        expected = np.flatnonzero((x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]))
        assert np.array_equal(room.column(low, high), expected)
    assert isinstance(room.xyz, np.memmap)


def test_rooms_are_sorted_once_and_again_when_they_change(root, monkeypatch):
    path = root / "Area_1_office_1.npy"
    Room(path, 13)
    with monkeypatch.context() as context:
        context.setattr("datasets.s3dis_room.sort_room", lambda *_: pytest.fail("sorted again"))
        assert len(Room(path, 13)) == 6000
    np.save(path, np.load(path)[:5000])
    assert len(Room(path, 13)) == 5000
    copy = pickle.loads(pickle.dumps(Room(path, 13)))  # noqa: S301 - our own
    assert np.array_equal(copy.xyz, Room(path, 13).xyz)


def test_a_folder_that_cannot_be_written(root, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("datasets.s3dis_room.pathlib.Path.mkdir", refuse)
    room = Room(root / "Area_2_office_1.npy", 13)
    assert len(room.column((0, 0), (9, 9))) == 6000
    assert sorted(room.order) == list(range(6000))
    with pytest.warns(UserWarning, match="cannot be written: 5 rooms are kept in memory"):
        build(root)


def test_many_rooms_need_few_open_files(tmp_path):
    """S3DIS has 272 rooms, and a process may often open no more than 1,024 files."""
    root = tmp_path / "rooms"
    write_rooms(root, (1,), 8000)
    for index in range(60):
        (root / f"Area_{index % 4 + 2}_hall_{index}.npy").write_bytes((root / "Area_1_office_1.npy").read_bytes())
    before = len(list(pathlib.Path("/proc/self/fd").iterdir()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = build(root, test_area=6)
    assert len(data.all_rooms) == 61
    assert len(list(pathlib.Path("/proc/self/fd").iterdir())) - before <= 61 + 9


def test_a_cache_that_can_be_neither_read_nor_written(root, monkeypatch):
    """That of another user, say."""
    expected = build(root)[0][0]
    refused = "/.sorted/"
    opened = builtins.open

    def refuse(file, *args, **kwargs):
        if refused in str(file):
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(file, *args, **kwargs)

    for name in ("builtins.open", "io.open"):
        monkeypatch.setattr(name, refuse)
    with pytest.warns(UserWarning, match="cannot be written: 5 rooms are kept in memory"):
        assert build(root)[0][0].equal(expected)


def test_coordinates_that_are_not_metres(root):
    spoil(root / "Area_5_office_1.npy", lambda room: room * np.array([1000, 1000, 1000, 1, 1, 1, 1]))
    with pytest.raises(DataError, match=r"spans \d+ m: coordinates must be in metres"):
        build(root, "test")


def test_a_room_that_only_looks_dense_is_reported(root):
    """900 points a square metre: more than 1,024 in 1.25 m × 1.25 m, never in a block."""
    rng = np.random.default_rng(0)
    thin = np.column_stack([rng.random((18000, 2)) * (4, 5), rng.random((18000, 4)), np.ones(18000)])
    np.save(root / "Area_1_hall_1.npy", thin)
    with pytest.warns(UserWarning, match="are left out: Area_1_hall_1"):
        assert "Area_1_hall_1" not in {room.name for room in build(root).rooms}


def test_blocks(root):
    data = build(root)
    assert len(data) == sum(round(6000 / 30000 * int(30000 / 256)) for _ in range(5))
    points, label = data[3]
    assert (points.shape, label.shape) == ((256, 3), (256,))
    assert points[:, :2].abs().max() <= 0.5
    assert points[:, 2].max() > 2
    assert points[:, 2].min() >= 0
    assert set(label.tolist()) <= {0, 1, 7}
    again = build(root)[3]
    assert points.equal(again[0])
    data.set_epoch(1)
    assert not data[3][0].equal(points)
    assert {room.name for room in build(root, "test").rooms} == {"Area_5_office_1"}
    assert {room.name for room in build(root, "test", test_area=2).rooms} == {"Area_2_office_1"}


def test_class_weights_are_cube_roots_of_inverse_frequencies(root):
    weights = class_weights(np.array([800, 100, 0]))
    assert weights == pytest.approx([1, 2, 1])
    counts = sum(np.bincount(room.label, minlength=13) for room in build(root).rooms)
    assert build(root).class_weights.numpy() == pytest.approx(class_weights(counts))


def test_a_room_without_a_dense_block_is_reported(root):
    sparse = np.load(root / "Area_1_office_1.npy")[:900]
    np.save(root / "Area_1_hall_1.npy", sparse)
    assert len(eligible_cells(Room(root / "Area_1_hall_1.npy", 13))) == 0
    with pytest.warns(UserWarning, match="1 rooms without a block .* are left out: Area_1_hall_1"):
        assert len(build(root).rooms) == 5
    np.save(root / "Area_5_office_1.npy", sparse)
    with pytest.warns(UserWarning, match="left out"), pytest.raises(DataError, match="no room for 'test' has a block"):
        build(root, "test")


def spoil(path, change):
    room = np.load(path)
    np.save(path, change(room))


@pytest.mark.parametrize(("change", "message"), [
    (lambda room: room[:, :6], r"Area_5_office_1.npy holds an array of shape \(6000, 6\)"),
    (lambda room: room[:0], "holds no points"),
    (lambda room: np.where(room == room[0, 0], np.nan, room), "holds NaN"),
    (lambda room: room + 7, "has labels from 7 to 14, not whole numbers from 0 to 12"),
    (lambda room: room + 0.5, "not whole numbers"),
])
def test_bad_rooms(root, change, message):
    spoil(root / "Area_5_office_1.npy", change)
    with pytest.raises(DataError, match=message):
        build(root, "test")


def test_missing_areas(root, tmp_path):
    (root / "Area_5_office_1.npy").unlink()
    with pytest.raises(DataError, match=r"holds no rooms of Area 5, which is to be tested; there are Area 1 \(1 room"):
        build(root, "test")
    (root / "Area_3_office_1.npy").unlink()
    with pytest.warns(UserWarning, match="lacks Area 3: training on Area 1"):
        build(root)
    with pytest.raises(DataError, match="absent is not a folder"):
        build(tmp_path / "absent")
    with pytest.raises(ConfigError, match="test_area is 7; it must be a whole number from 1 to 6"):
        build(root, test_area=7)
