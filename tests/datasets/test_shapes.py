import numpy as np
import pytest
import torch

from datasets import DATASETS, Shapes
from datasets.procedural.objects import RECIPES
from datasets.procedural.primitives import box, cylinder, revolve, rotation, sample_parts, tube
from utils.errors import ConfigError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_classes_sizes_and_labels():
    data = Shapes(subset="train", npoints=32, size=45)
    assert len(data.class_names) == 20
    assert (len(data), data.labels[:3].tolist(), data.labels[44]) == (45, [0, 1, 2], 4)
    few = Shapes(subset="train", npoints=32, size=45, samples_per_class=2)
    assert np.bincount(few.labels).tolist() == [2] * 20
    points, label = data[7]
    assert (points.shape, points.dtype, label) == ((32, 3), torch.float32, 7)
    assert points.norm(dim=1).max().item() == pytest.approx(1, rel=1e-5)


def test_an_object_depends_on_seed_subset_and_index_alone():
    one, two = Shapes(subset="train", npoints=32, size=20), Shapes(subset="train", npoints=32, size=40)
    assert np.array_equal(one.clouds, two.clouds[:20])
    assert not np.array_equal(one.clouds, Shapes(subset="test", npoints=32, size=20).clouds)
    assert not np.array_equal(one.clouds, Shapes(subset="train", npoints=32, size=20, data_seed=1).clouds)
    two.set_seed(5)
    assert np.array_equal(one.clouds, two.clouds[:20])


def test_training_draws_other_points_each_epoch():
    train, test = (Shapes(subset=subset, npoints=32, size=20) for subset in ("train", "test"))
    for data, changes in ((train, True), (test, False)):
        first = data[3][0]
        data.set_epoch(1)
        assert torch.equal(data[3][0], first) != changes


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_varies_and_is_finite(name):
    one, two = (sample_parts(RECIPES[name](np.random.default_rng(seed)), np.random.default_rng(0), 500)
                for seed in (0, 1))
    assert one.shape == (500, 3)
    assert np.isfinite(one).all()
    assert np.ptp(one, axis=0).min() > 0.01
    assert not np.allclose(one, two)


def test_a_box_is_sampled_by_area(rng):
    part = box(1, 2, 4)
    points = part.sample(rng, 20000)
    assert part.area == pytest.approx(28)
    on = np.isclose(np.abs(points), [0.5, 1, 2])
    assert on.any(1).all()
    assert on.mean(0) == pytest.approx(np.array([8, 4, 2]) / 14, abs=0.01)


def test_a_cylinder_is_sampled_by_area(rng):
    part = cylinder(1, 3)
    points = part.sample(rng, 20000)
    assert part.area == pytest.approx(2 * np.pi * (1 + 3))
    radius = np.hypot(points[:, 0], points[:, 2])
    caps = np.isclose(np.abs(points[:, 1]), 1.5)
    assert (np.isclose(radius, 1) | caps).all()
    assert caps.mean() == pytest.approx(0.25, abs=0.01)
    assert (radius[caps] ** 2).mean() == pytest.approx(0.5, abs=0.02)  # a disc, evenly


def test_a_cone_is_sampled_by_area(rng):
    points = revolve((1, 0), (0, 1)).sample(rng, 20000)
    assert points[:, 1].mean() == pytest.approx(1 / 3, abs=0.01)


def test_a_tube_keeps_its_distance(rng):
    points = tube([(0, 0, 0), (0, 2, 0), (1, 2, 0)], 0.1).sample(rng, 3000)
    first = points[(points[:, 1] < 1.5)]
    assert np.hypot(first[:, 0], first[:, 2]) == pytest.approx(np.full(len(first), 0.1))
    assert len(first) / 3000 == pytest.approx(0.5, abs=0.03)


def test_rotations_turn_the_axes():
    assert rotation("y", 90) @ [0, 0, 1] == pytest.approx(np.array([1, 0, 0]))
    assert rotation("x", 90) @ [0, 1, 0] == pytest.approx(np.array([0, 0, 1]))
    assert rotation("z", 90) @ [1, 0, 0] == pytest.approx(np.array([0, 1, 0]))


def test_a_partial_view_misses_one_side():
    data = Shapes(subset="train", npoints=256, size=60)
    spheres = [cloud for cloud, label in zip(data.clouds, data.labels, strict=True)
               if data.class_names[label] == "ring"]
    gaps = [np.linalg.norm(cloud.mean(0) - (cloud.max(0) + cloud.min(0)) / 2) for cloud in spheres]
    assert min(gaps) < 0.05 < max(gaps)


def test_wrong_keys():
    for key in ("size", "npoints"):
        with pytest.raises(ConfigError, match=f"dataset.val.{key} is 0; it must be a whole number of at least 1"):
            DATASETS.build({"NAME": "Shapes", "subset": "train", key: 0}, "dataset.val")
