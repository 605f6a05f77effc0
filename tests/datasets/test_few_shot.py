import sys

import numpy as np
import pytest
import yaml

from datasets import ModelNetFewShot, Shapes
from datasets.generate_few_shot_data import draw_fold, main, write_fold
from utils.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def shapes():
    return Shapes(subset="train", npoints=16, size=120), Shapes(subset="test", npoints=16, size=400)


def build(folder, **keys):
    return ModelNetFewShot(**{"DATA_PATH": folder, "N_POINTS": 16, "subset": "train", "way": 5, "shot": 3, "fold": 0,
                              **keys})


def test_a_fold_has_the_classes_and_clouds_it_should(shapes, tmp_path):
    fold = draw_fold(*shapes, 5, 3, np.random.default_rng(0))
    write_fold(tmp_path / "5way_3shot" / "0.pkl", fold)
    train, test = build(tmp_path), build(tmp_path, subset="test")
    assert (np.bincount(train.labels).tolist(), np.bincount(test.labels).tolist()) == ([3] * 5, [20] * 5)
    assert train.class_names == test.class_names
    assert len(set(train.class_names)) == 5
    classes = [number for _, label, number in fold["train"] if label == 1]
    assert set(shapes[0].labels[classes]) <= set(range(20))
    assert train.class_names[1] == f"class {classes[0]}"
    points = test[7][0].numpy()
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(1)
    clouds = {cloud.tobytes() for cloud, _, _ in fold["train"]}
    assert len(clouds) == 15


def test_folds_depend_on_seed_way_shot_and_number(shapes):
    def draw(*seed):
        return draw_fold(*shapes, 5, 3, np.random.default_rng(seed))["train"]

    same, other = draw(0, 5, 3, 0), draw(0, 5, 3, 1)
    assert all(np.array_equal(one[0], two[0]) for one, two in zip(same, draw(0, 5, 3, 0), strict=True))
    assert [sample[2] for sample in same] != [sample[2] for sample in other]


def test_the_command_draws_all_folds(tmp_path, monkeypatch, capsys):
    config = tmp_path / "shapes.yaml"
    config.write_text(yaml.safe_dump({"NAME": "Shapes", "size": 400, "npoints": 16}))
    monkeypatch.setattr(sys, "argv", ["x", "--config", str(config), "--output", str(tmp_path / "out"), "--ways", "5",
                                      "10", "--shots", "2", "--folds", "2"])
    main()
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.pkl")) == [
        "10way_2shot/0.pkl", "10way_2shot/1.pkl", "5way_2shot/0.pkl", "5way_2shot/1.pkl"]
    assert "4 folds in" in capsys.readouterr().out
    assert len(build(tmp_path / "out", way=10, shot=2, fold=1)) == 20


def test_bad_folds(shapes, tmp_path):
    with pytest.raises(ConfigError, match="21-way 3-shot needs 21 classes .* there are only 20"):
        draw_fold(*shapes, 21, 3, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="few-shot data needs --way, --shot and --fold"):
        build(tmp_path, way=None)
    with pytest.raises(DataError, match=r"5way_3shot/0.pkl does not exist: make them: python -m datasets.generate"):
        build(tmp_path)
    cloud = np.zeros((16, 3), np.float32)
    for content, message in (
            ([1, 2], "is not a fold: no list 'train'"),
            ({"train": [(cloud, 5, 0)]}, "train cloud 0 has label 5 and class 0, but there are 5 ways"),
            ({"train": [(cloud[:4], 0, 0)]}, "train cloud 0 has 4 points, but 16 are asked for")):
        write_fold(tmp_path / "5way_3shot" / "0.pkl", content)
        with pytest.raises(DataError, match=message):
            build(tmp_path)
