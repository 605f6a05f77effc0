"""Scales, masks and local attention of I2P-MAE's encoder."""
import pytest
import torch

from extensions.ops import furthest_point_sample, knn
from models.i2p_mae.encoder import (
    OUTSIDE,
    HierarchicalEncoder,
    TokenMerging,
    attention_bias,
    build_stages,
    check_scales,
    group_scales,
    inherit_masks,
    visible_first,
)
from models.layers.feature_propagation import ResidualFeaturePropagation
from models.layers.patches import PatchEncoder, gather
from models.layers.transformer import Attention
from utils.errors import ConfigError, DataError

GROUPS, SIZES = (32, 16, 8), (8, 4, 4)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def clouds(batch, seed=0):
    return torch.randn(batch, 128, 3, generator=torch.Generator().manual_seed(seed))


def encoder(local_radius=0, depths=(2, 2, 2)):
    return HierarchicalEncoder(depths, (12, 24, 48), 3, 0.1, local_radius).eval()


def test_each_scale_is_furthest_point_sampling_of_the_one_before():
    points = clouds(2)
    _, centers, children = group_scales(points, GROUPS, SIZES)
    finer = points
    for scale, center in enumerate(centers):
        torch.testing.assert_close(center, gather(finer, furthest_point_sample(finer, GROUPS[scale])), rtol=0, atol=0)
        if scale:
            assert torch.equal(children[scale - 1], knn(finer, center, SIZES[scale])[1])
        finer = center


def test_masks_by_hand():
    children = [torch.tensor([[[0, 1], [1, 2]], [[0, 0], [3, 3]]]), torch.tensor([[[0]], [[1]]])]
    finest, middle, coarsest = inherit_masks(torch.tensor([[False], [False]]), children, [4, 2, 1])
    assert middle.tolist() == [[False, True], [True, False]]
    assert finest.tolist() == [[False, False, True, True], [True, True, True, False]]
    assert coarsest.tolist() == [[False], [False]]


def test_the_published_masks_show_the_first_token_of_the_first_cloud():
    children = [torch.tensor([[[2], [3]], [[2], [3]]])]
    mask = torch.tensor([[True, False], [True, False]])
    assert inherit_masks(mask, children, [4, 2])[0].tolist() == [[True, True, True, False]] * 2
    assert inherit_masks(mask, children, [4, 2], True)[0].tolist() == [[False, True, True, False],
                                                                        [True, True, True, False]]
    nothing = torch.zeros_like(mask)
    assert torch.equal(inherit_masks(nothing, children, [4, 2], True)[0], inherit_masks(nothing, children, [4, 2])[0])


def test_visible_tokens_are_made_of_visible_tokens():
    _, _, children = group_scales(clouds(4), GROUPS, SIZES)
    mask = torch.rand(4, 8) < 0.7
    masks = inherit_masks(mask, children, GROUPS)
    for finer, coarser, index in zip(masks, masks[1:], children, strict=False):
        assert not gather(finer.unsqueeze(-1), index)[~coarser].any()
        assert (~finer).sum() <= (~coarser).sum() * index.shape[-1]


def test_visible_first():
    order, valid = visible_first(torch.tensor([[True, False, True, False], [False, True, True, True]]))
    assert order[0].tolist() == [1, 3]
    assert order[1, 0] == 0
    assert valid.tolist() == [[True, True], [True, False]]
    order, valid = visible_first(torch.tensor([[True, False], [False, True]]))
    assert (order.tolist(), valid) == ([[1], [0]], None)


def test_attention_bias_by_hand():
    center = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [3, 0, 0]]])
    near = attention_bias(center, 2.0)
    assert near[0, 0].tolist() == [[0, 0, OUTSIDE], [0, 0, OUTSIDE], [OUTSIDE, OUTSIDE, 0]]  # 2 is outside
    both = attention_bias(center, 2.5, torch.tensor([[True, True, False]]))
    assert both[0, 0].tolist() == [[0, 0, OUTSIDE], [0, 0, OUTSIDE], [OUTSIDE, 0, OUTSIDE]]
    assert attention_bias(center, 0) is None
    assert attention_bias(center, 0, torch.tensor([[True, True, False]])).tolist() == [[[[0, 0, OUTSIDE]]]]


def test_a_token_that_sees_nothing_is_finite_in_half_precision():
    attention = Attention(12, 3).half()
    assert attention(torch.randn(1, 4, 12).half(), torch.full((1, 1, 4, 4), OUTSIDE)).isfinite().all()


def test_tokens_beyond_the_radius_have_no_influence():
    model = encoder((1.5, 0, 0), depths=(1, 1, 1))
    points = clouds(1)
    neighborhood, centers, children = group_scales(points, GROUPS, SIZES)
    moved = neighborhood.clone()
    moved[:, 5] += 1
    before, after = (model(patches, centers, children)[0] for patches in (neighborhood, moved))
    changed = (before - after).abs().amax(-1)[0] > 0
    near = torch.cdist(centers[0], centers[0])[0, 5] < 1.5
    assert torch.equal(changed, near)
    assert 1 < near.sum() < 32


@pytest.mark.parametrize("radius", [0, (0.4, 0.8, 1.6)])
def test_a_cloud_alone_gives_what_it_gives_beside_others(radius):
    model = encoder(radius)
    scales = group_scales(clouds(3), GROUPS, SIZES)
    mask = torch.tensor([[False] * 1 + [True] * 7, [False] * 4 + [True] * 4, [False] * 8])
    masks = inherit_masks(mask, scales[2], GROUPS)
    assert len({int(count) for count in (~masks[0]).sum(1)}) == 3  # each has another number of visible tokens
    together = model(*scales, masks)
    for index in range(3):
        row = slice(index, index + 1)
        alone = model(scales[0][row], [center[row] for center in scales[1]], [child[row] for child in scales[2]],
                      [hidden[row] for hidden in masks])
        for scale, hidden in enumerate(masks):
            visible = ~hidden[index]
            torch.testing.assert_close(alone[scale][0, visible], together[scale][index, visible], rtol=1e-4, atol=1e-5)


def test_masked_patches_have_no_influence():
    model = encoder()
    neighborhood, centers, children = group_scales(clouds(2), GROUPS, SIZES)
    masks = inherit_masks(torch.tensor([[True] * 6 + [False] * 2] * 2), children, GROUPS)
    other = torch.where(masks[0][..., None, None], torch.randn_like(neighborhood), neighborhood)
    for before, after, hidden in zip(model(neighborhood, centers, children, masks),
                                     model(other, centers, children, masks), masks, strict=True):
        assert torch.equal(before[~hidden], after[~hidden])


def test_nothing_masked_is_the_same_as_no_mask():
    model, scales = encoder(), group_scales(clouds(2), GROUPS, SIZES)
    masks = [torch.zeros(2, number, dtype=torch.bool) for number in GROUPS]
    for one, two in zip(model(*scales), model(*scales, masks), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("training", [True, False])
def test_merging_is_a_patch_encoder_over_the_children(training):
    merging, plain = TokenMerging(6, 10).train(training), PatchEncoder(10, (6, 6, 6, 10)).train(training)
    plain.load_state_dict(merging.state_dict())
    tokens, children = torch.randn(2, 9, 6), torch.randint(9, (2, 4, 3))
    torch.testing.assert_close(merging(tokens, children), plain(gather(tokens, children)))


def test_propagation_is_the_plain_formula():
    propagation = ResidualFeaturePropagation(6, 4, 2).eval()
    for module in propagation.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.running_mean)
    points, center = torch.randn(2, 9, 3), torch.randn(2, 5, 3)
    skip, features = torch.randn(2, 9, 4), torch.randn(2, 5, 6)
    distance, index = torch.cdist(points, center).topk(3, largest=False)
    weight = 1 / (distance ** 2 + 1e-8)
    mixed = (gather(features, index) * (weight / weight.sum(-1, keepdim=True)).unsqueeze(-1)).sum(2)
    x = propagation.fuse.net(torch.cat([skip, mixed], -1).transpose(1, 2))  # B C N
    for layer in propagation.extraction.operation:
        x = torch.nn.functional.gelu(layer.net2(layer.net1(x)) + x)
    torch.testing.assert_close(propagation(points, center, skip, features), x.transpose(1, 2), rtol=1e-4, atol=1e-5)


def test_drop_path_rises_over_all_scales():
    rates = [block.drop_path.rate for stage in build_stages((3, 6), (2, 3), 3, 0.4) for block in stage.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(("change", "message"), [
    ({"num_groups": (32, 64, 8)}, r"32 tokens cannot be merged into 64 of 4 each"),
    ({"group_sizes": (8, 40, 4)}, r"32 tokens cannot be merged into 16 of 40 each"),
    ({"encoder_depths": (5, 5)}, r"model.encoder_depths is \[5, 5\]; it must list a whole number .* of the 3 scales"),
    ({"num_heads": 5}, r"model.encoder_dims \[12, 24, 48\] must be multiples of num_heads \(5\)"),
])
def test_scales_that_do_not_fit(change, message):
    keys = {"num_groups": GROUPS, "group_sizes": SIZES, "encoder_depths": (1, 1, 1), "encoder_dims": (12, 24, 48),
            "num_heads": 3, **change}
    with pytest.raises(ConfigError, match=message):
        check_scales(keys["num_groups"], keys["group_sizes"], keys["encoder_depths"], keys["encoder_dims"],
                     keys["num_heads"])


def test_other_errors():
    with pytest.raises(ConfigError, match=r"model.local_radius is \(1, 2\); it must be one number of at least 0"):
        encoder((1, 2))
    with pytest.raises(DataError, match="clouds of 16 points cannot be cut into 32 groups of 8"):
        group_scales(torch.rand(1, 16, 3), GROUPS, SIZES)
