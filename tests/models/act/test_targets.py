"""Targets of stage II and how much there is in them to learn, against sums by hand and numpy."""
import numpy as np
import pytest
import torch

from models.act.targets import cloud_target, constant_prediction, spread, standardise
from models.losses import DISTILLATION_LOSSES, barlow_twins_loss, nt_xent_loss
from utils.errors import ConfigError

TOKENS = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 6) + 3


def test_standardised_channels():
    flat = TOKENS.numpy().reshape(24, 5)
    expected = (flat - flat.mean(0)) / flat.std(0, ddof=1)
    np.testing.assert_allclose(standardise(TOKENS).numpy().reshape(24, 5), expected, atol=1e-5)


def test_a_channel_that_does_not_vary_stays_finite():
    target = TOKENS.clone()
    target[..., 2] = 7.0
    out = standardise(target)
    assert torch.isfinite(out).all()
    assert torch.equal(out[..., 2], torch.zeros(4, 6))


def test_the_target_of_a_cloud():
    x = TOKENS.numpy()
    pooled = np.concatenate([x.mean(1), x.max(1)], -1)  # 4 10
    expected = (pooled - pooled.mean(0)) / pooled.std(0, ddof=1)
    assert cloud_target(TOKENS).shape == (4, 1, 10)
    np.testing.assert_allclose(cloud_target(TOKENS).numpy()[:, 0], expected, atol=1e-5)
    with pytest.raises(ConfigError, match="total_bs must be at least 2"):
        cloud_target(TOKENS[:1])


@pytest.mark.parametrize("name", ["cosine", "l2", "ntxent"])
def test_no_constant_predicts_better(name):
    best, compare = constant_prediction(TOKENS, name), DISTILLATION_LOSSES[name]
    loss = compare(best.expand(TOKENS.shape), TOKENS)
    for index in range(20):
        other = best + 0.1 * torch.randn(1, 1, 5, generator=torch.Generator().manual_seed(index))
        assert compare(other.expand(TOKENS.shape), TOKENS) > loss


def test_losses_of_constants():
    ones = constant_prediction(TOKENS, "ntxent").expand(TOKENS.shape)
    assert nt_xent_loss(ones, TOKENS).item() == pytest.approx(np.log(24))
    mean = constant_prediction(TOKENS, "l2")
    torch.testing.assert_close(mean, TOKENS.mean((0, 1), keepdim=True))
    same = constant_prediction(TOKENS, "barlowtwins").expand(TOKENS.shape)
    assert barlow_twins_loss(same, TOKENS).item() == pytest.approx(1, abs=1e-5)


def test_how_tokens_spread():
    x = TOKENS.numpy().astype(np.float64)
    flat = x.reshape(24, 5)
    mean, variance = flat.mean(0), flat.var(0)
    eigenvalues = np.linalg.eigvalsh(np.corrcoef(flat.T))
    out = spread(TOKENS)
    assert out["common"].item() == pytest.approx((mean**2).sum() / (flat**2).sum(1).mean(), rel=1e-5)
    assert out["between"].item() == pytest.approx(((x.mean(1) - mean)**2).sum(1).mean() / variance.sum(), rel=1e-5)
    assert out["rank"].item() == pytest.approx(eigenvalues.sum()**2 / (eigenvalues**2).sum(), rel=1e-5)


def test_the_ends_of_the_scales():
    line = torch.linspace(-1, 1, 8).view(2, 4, 1) * torch.tensor([1.0, -2.0, 3.0])
    assert spread(line)["rank"].item() == pytest.approx(1)
    assert spread(torch.randn(64, 64, 8))["rank"].item() == pytest.approx(8, rel=0.02)
    clouds = torch.randn(5, 1, 3).expand(5, 4, 3)  # every cloud's tokens are alike
    assert spread(clouds)["between"].item() == pytest.approx(1)
    patches = torch.randn(1, 6, 3).expand(5, 6, 3)  # every cloud is alike
    assert spread(patches)["between"].item() == pytest.approx(0, abs=1e-6)
    assert spread(patches + 1000)["common"].item() == pytest.approx(1, abs=1e-3)


def test_nt_xent_of_a_subset():
    prediction, target = torch.randn(2, 8, 4), torch.randn(2, 8, 4)
    whole = nt_xent_loss(prediction, target)
    assert torch.equal(nt_xent_loss(prediction, target, limit=16), whole)
    torch.manual_seed(3)
    some = nt_xent_loss(prediction, target, limit=6)
    torch.manual_seed(3)
    chosen = torch.randperm(16)[:6]
    one, other = (x.flatten(0, 1)[chosen] for x in (prediction, target))
    similarity = torch.nn.functional.cosine_similarity(one[:, None], other[None], dim=-1) / 0.1
    torch.testing.assert_close(some, torch.nn.functional.cross_entropy(similarity, torch.arange(6)))


def test_barlow_twins_by_hand():
    x = np.random.default_rng(0).normal(size=(2, 10, 3))
    y = x + np.random.default_rng(1).normal(size=x.shape)
    c = np.corrcoef(x.reshape(20, 3).T, y.reshape(20, 3).T)[:3, 3:] * 19 / 20  # with the unbiased standard deviation
    on, off = ((np.diag(c) - 1)**2).sum(), (c**2).sum() - (np.diag(c)**2).sum()
    loss = barlow_twins_loss(torch.from_numpy(x), torch.from_numpy(y))
    assert loss.item() == pytest.approx((on + 0.005 * off) / 3, rel=1e-5)
