import pytest
import torch

from datasets.transforms import build_transform, rotate, scale_and_translate, subsample
from utils.errors import ConfigError


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_scale_and_translate_stay_within_the_published_range():
    corners = torch.tensor([[0.0, 0, 0], [1, 1, 1]]).expand(4000, 2, 3)
    moved = scale_and_translate(corners)
    shift, scale = moved[:, 0], moved[:, 1] - moved[:, 0]
    assert -0.2 <= shift.min() < -0.19
    assert 0.19 < shift.max() <= 0.2
    assert 2 / 3 - 1e-5 <= scale.min() < 0.68
    assert 1.49 < scale.max() <= 1.5 + 1e-5
    assert scale.std(0).min() > 0.2  # every axis of every cloud has its own
    assert abs(torch.corrcoef(scale.T)[0, 1]) < 0.1


def test_scale_stays_within_the_published_range():
    torch.manual_seed(0)
    factors = build_transform(["Scale"])(torch.ones(500, 2, 3))
    assert torch.equal(factors[:, 0], factors[:, 1])  # one factor a cloud and axis
    assert 0.9 <= factors.min() < 0.91
    assert 1.09 < factors.max() <= 1.1
    assert not torch.equal(factors[..., 0], factors[..., 1])


def test_rotation_is_about_y_and_uniform():
    points = torch.tensor([[1.0, 5, 0], [0, 5, 1]]).expand(4000, 2, 3)
    turned = rotate(points)
    torch.testing.assert_close(turned[..., 1], points[..., 1])
    torch.testing.assert_close(turned.norm(dim=-1), points.norm(dim=-1))
    torch.testing.assert_close((turned[:, 0] - turned[:, 1]).norm(dim=-1), torch.full((4000,), 2 ** 0.5))
    angle = torch.atan2(turned[:, 0, 2], turned[:, 0, 0])
    assert torch.histc(angle, 4).min() > 900


def test_transforms_by_name():
    points = torch.rand(2, 5, 3)
    assert torch.equal(build_transform([])(points), points)
    torch.manual_seed(1)
    one = build_transform(["ScaleAndTranslate", "Rotate"])(points)
    torch.manual_seed(1)
    assert torch.equal(one, rotate(scale_and_translate(points)))
    with pytest.raises(ConfigError, match=r"unknown transform 'Rotat' \(did you mean 'Rotate'\?\)"):
        build_transform(["Rotat"])


def test_evaluation_takes_the_furthest_points():
    line = torch.tensor([0.1, 0.2, 1, 2, 3, 4, 9]).view(1, 7, 1).expand(-1, -1, 3)
    assert subsample(line, 3, random=False)[0, :, 0].tolist() == pytest.approx([0.1, 9, 4])


def test_training_draws_from_somewhat_more():
    points = torch.rand(2, 3000, 3)
    seen = {tuple(row.tolist()) for _ in range(40) for row in subsample(points, 1024, random=True)[0]}
    assert len(seen) == 1200
    one = subsample(points, 1024, random=True)
    assert one.shape == (2, 1024, 3)
    assert subsample(points[:, :1024], 1024, random=True).shape == (2, 1024, 3)


def test_too_few_points():
    with pytest.raises(ConfigError, match="npoints is 9, but the clouds have only 8 points"):
        subsample(torch.rand(1, 8, 3), 9, random=False)
