"""What the report on targets says of features whose making is known."""
import pytest
import torch

from tools.tasks.target_report import decompose, explained, principal_colours

CENTER = torch.rand(60, 16, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
NOISE = torch.randn(60, 16, 8, generator=torch.Generator().manual_seed(1))


def test_functions_of_the_centres_are_explained_and_noise_is_not():
    features = torch.cat([CENTER.sin(), CENTER.prod(-1, keepdim=True)], -1)
    assert explained(features, CENTER) > 0.98
    assert explained(NOISE, CENTER) < 0.05
    mixture = torch.cat([features * features.std(0).mean() / features.std(), NOISE[..., :4] * features.std()], -1)
    assert 0.3 < explained(mixture, CENTER) < 0.7


def test_parts_of_features():
    clouds = torch.randn(60, 1, 8, generator=torch.Generator().manual_seed(2))
    found = decompose(clouds + NOISE, CENTER)
    assert found["between clouds"] == pytest.approx(0.53, abs=0.06)  # half the variance, and a 16th of the rest
    assert found["effective rank"] == pytest.approx(8, rel=0.1)
    shifted = decompose(NOISE + 100, CENTER)
    assert shifted["energy in the mean"] == pytest.approx(1, abs=1e-3)
    assert shifted["loss of the mean"] == pytest.approx(0, abs=1e-3)


def test_colours_are_the_principal_components():
    line = torch.linspace(-1, 1, 64).view(4, 16, 1)
    features = line * torch.tensor([1.0, 2.0, -2.0, 0.5]) + 1e-3 * NOISE[:4, :, :4]
    colours = principal_colours(features)
    assert colours.shape == (4, 16, 3)
    assert colours.min() == 0
    assert colours.max() == 1
    order = colours[..., 0].flatten().argsort()
    assert (order == torch.arange(64)).float().mean() > 0.9 or (order.flip(0) == torch.arange(64)).float().mean() > 0.9
