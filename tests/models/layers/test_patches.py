"""The efficient forms of the layers against the plain formulas that the published networks are written in."""
import copy

import pytest
import torch
from torch import nn

from models.layers.dgcnn import DGCNN, center_graph
from models.layers.folding import FoldingDecoder
from models.layers.patches import PatchEncoder, gather, group
from models.layers.pointwise import norm_relu
from models.masking import make_mask
from utils.errors import DataError


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def plain(sequence, x):
    """Apply a published layer to channels-last ``x`` (B, N, C) in its own channels-first form."""
    return sequence(x.transpose(1, 2)).transpose(1, 2)


@pytest.mark.parametrize("training", [True, False])
def test_patch_encoder_is_the_plain_pointnet(training):
    encoder = PatchEncoder(24).train(training)
    patches = torch.randn(2, 5, 8, 3)
    expected = plain_pointnet(encoder, patches)
    torch.testing.assert_close(encoder(patches), expected, rtol=1e-4, atol=1e-5)


def test_patch_encoder_has_the_gradients_of_the_plain_pointnet():
    encoder, patches = PatchEncoder(24).double(), torch.randn(2, 5, 8, 3, dtype=torch.double, requires_grad=True)
    towards = torch.randn(2, 5, 24, dtype=torch.double)
    wanted = {"patches": patches, **dict(encoder.named_parameters())}
    found, expected = (dict(zip(wanted, torch.autograd.grad((form(patches) * towards).sum(), list(wanted.values())),
                                strict=True))
                       for form in (encoder, lambda x: plain_pointnet(encoder, x)))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def plain_pointnet(encoder, patches):
    x = plain(encoder.first_conv, patches.flatten(0, 1))
    x = torch.cat([x.max(1, keepdim=True).values.expand(-1, patches.shape[2], -1), x], -1)
    return plain(encoder.second_conv, x).max(1).values.unflatten(0, patches.shape[:2])


@pytest.mark.parametrize("shape", [(40, 6), (5, 8, 6)])
def test_norm_relu_keeps_the_statistics_that_batch_norm_keeps(shape):
    norm, x = nn.BatchNorm1d(6), torch.randn(shape) + 2
    plain_norm = copy.deepcopy(norm)
    for factor in (1, 3):
        found = norm_relu(norm, factor * x)
        torch.testing.assert_close(found, plain_norm(factor * x.flatten(0, -2)).relu().view(shape))
    for key, value in plain_norm.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[key], value)
    torch.testing.assert_close(norm_relu(norm.eval(), x), plain_norm.eval()(x.flatten(0, -2)).relu().view(shape))


def test_dgcnn_is_the_plain_edge_convolution():
    network, x, center = DGCNN(12, 20), torch.randn(2, 9, 12), torch.randn(2, 9, 3)
    graph = torch.cdist(center, center).topk(4, largest=False).indices
    y = plain(network.input_trans, x)
    outputs = []
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        neighbours = gather(y, graph)  # B G k C
        edges = torch.cat([neighbours - y.unsqueeze(2), y.unsqueeze(2).expand_as(neighbours)], -1)
        y = layer(edges.permute(0, 3, 1, 2)).max(-1).values.transpose(1, 2)
        outputs.append(y)
    expected = plain(network.layer5, torch.cat(outputs, -1))
    torch.testing.assert_close(network(x, center_graph(center)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_folding_is_the_plain_decoder(training):
    decoder, tokens = FoldingDecoder(10, 8).train(training), torch.randn(2, 3, 10)
    flat = tokens.flatten(0, 1)
    coarse = decoder.mlp(flat).view(6, 2, 3)
    anchor = coarse.unsqueeze(2).expand(-1, -1, 4, -1).reshape(6, 8, 3)
    grid = torch.tensor([[-.05, -.05], [.05, -.05], [-.05, .05], [.05, .05]]).repeat(2, 1).expand(6, -1, -1)
    x = torch.cat([flat.unsqueeze(1).expand(-1, 8, -1), grid, anchor], -1)
    fine = plain(decoder.final_conv, x) + anchor
    got_coarse, got_fine = decoder(tokens)
    torch.testing.assert_close(got_coarse.flatten(0, 1), coarse)
    torch.testing.assert_close(got_fine.flatten(0, 1), fine, rtol=1e-4, atol=1e-5)


def test_grouping():
    line = torch.tensor([[0.1, 0, 0], [1, 0, 0], [2, 0, 0], [10, 0, 0]]).unsqueeze(0)
    neighborhood, center = group(line, 2, 2)
    assert center[0, :, 0].tolist() == pytest.approx([0.1, 10])
    assert neighborhood[0, :, :, 0].flatten().tolist() == pytest.approx([0, 0.9, 0, -8])


def test_a_small_cloud_is_refused():
    with pytest.raises(DataError, match="clouds of 10 points cannot be cut into 4 groups of 16"):
        group(torch.rand(1, 10, 3), 4, 16)


@pytest.mark.parametrize(("kind", "ratio", "masked"), [("rand", 0.8, 12), ("block", 0.8, 12), ("rand", 0.0, 0)])
def test_masks_hide_the_same_number_in_every_cloud(kind, ratio, masked):
    mask = make_mask(kind, torch.rand(5, 16, 3), ratio)
    assert mask.sum(1).tolist() == [masked] * 5
    if masked and kind == "rand":
        assert len({tuple(row.tolist()) for row in mask}) > 1


def test_block_masks_are_balls():
    center = torch.arange(16.0).view(1, 16, 1).expand(8, -1, 3)
    for row in make_mask("block", center, 0.5):
        inside = row.nonzero().flatten()
        assert inside.max() - inside.min() == 7


def test_decoder_names_are_the_published_convolutions():
    assert isinstance(FoldingDecoder(10, 8).final_conv[0], nn.Conv1d)
    assert FoldingDecoder(10, 8).final_conv[0].weight.shape == (512, 15, 1)
