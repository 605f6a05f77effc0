"""The published packages' faces keep their signatures, layouts and index types."""
import pytest
import torch
from op_samples import CLOUDS

from extensions import ops
from extensions.chamfer_dist import ChamferDistanceL1, ChamferDistanceL2, ChamferDistanceL2_split, ChamferFunction
from extensions.knn_cuda import KNN
from extensions.pointnet2_ops import pointnet2_utils

ONE = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]])
TWO = torch.tensor([[[0.0, 0, 3], [1, 0, 2], [1, 4, 0]]])  # to ONE: 3, 2, 4; from ONE: √5 (to 1, 0, 2), 2


def test_chamfer_by_hand():
    root5 = 5 ** 0.5
    first, second = ChamferDistanceL2_split()(ONE, TWO)
    assert first.item() == pytest.approx((5 + 4) / 2)
    assert second.item() == pytest.approx((9 + 4 + 16) / 3)
    assert ChamferDistanceL2()(ONE, TWO).item() == pytest.approx(9 / 2 + 29 / 3)
    assert ChamferDistanceL1()(ONE, TWO).item() == pytest.approx(((root5 + 2) / 2 + (3 + 2 + 4) / 3) / 2)


def test_chamfer_l1_gradient_is_finite_at_zero():
    xyz = CLOUDS["random"][0].clone().requires_grad_()
    loss = ChamferDistanceL1()(xyz, xyz.detach())
    loss.backward()
    assert loss.item() < 1e-11
    assert xyz.grad.equal(torch.zeros_like(xyz))


def test_chamfer_l1_gradient():
    xyz, other = (cloud.double() for cloud in CLOUDS["random"])
    xyz.requires_grad_()
    assert torch.autograd.gradcheck(ChamferDistanceL1(), (xyz, other), fast_mode=True)


@pytest.mark.parametrize("loss", [ChamferDistanceL1, ChamferDistanceL2, ChamferDistanceL2_split])
def test_ignore_zeros(loss):
    """In a batch of one, padding with zeros changes nothing; in a larger batch it counts, as published."""
    padding = torch.zeros(1, 4, 3)
    one, two = ONE + 1, TWO + 1
    padded = torch.cat([one, padding], 1), torch.cat([padding, two], 1)

    def value(ignore_zeros, *clouds):
        return torch.as_tensor(loss(ignore_zeros=ignore_zeros)(*clouds))

    clean = value(False, one, two)
    assert value(True, *padded).equal(clean)
    assert not value(False, *padded).allclose(clean)
    batch = [cloud.repeat(2, 1, 1) for cloud in padded]
    assert value(True, *batch).equal(value(False, *batch))


def test_ignore_zeros_drops_points_whose_coordinates_cancel():
    """The published rule: a point whose coordinates add up to 0 is padding."""
    xyz = torch.tensor([[[1.0, -1, 0], [2, 0, 0]]])
    assert ChamferDistanceL2(ignore_zeros=True)(xyz, xyz[:, 1:]).item() == 0
    assert ChamferDistanceL2()(xyz, xyz[:, 1:]).item() == pytest.approx(2 / 2)
    two = xyz.repeat(2, 1, 1)
    assert ChamferDistanceL2(ignore_zeros=True)(two, two[:, 1:]).item() == pytest.approx(2 / 2)


def test_chamfer_function():
    """Values by hand; the gradient of a squared distance is twice the way to the nearest point, from both sides."""
    one, two = ONE.clone().requires_grad_(), TWO.clone().requires_grad_()
    first, second = ChamferFunction.apply(one, two)
    assert first.tolist() == [[5, 4]]
    assert second.tolist() == [[9, 4, 16]]
    first.sum().backward(retain_graph=True)
    assert one.grad.tolist() == [[[-2, 0, -4], [0, 0, -4]]]  # both nearest to (1, 0, 2)
    assert two.grad.tolist() == [[[0, 0, 0], [2, 0, 8], [0, 0, 0]]]
    second.sum().backward()
    assert two.grad.tolist() == [[[0, 0, 6], [2, 0, 12], [0, 8, 0]]]
    xyz, other = (cloud.double().requires_grad_() for cloud in CLOUDS["random"])
    assert torch.autograd.gradcheck(ChamferFunction.apply, (xyz, other), fast_mode=True)


FUNCTIONS = {"FurthestPointSampling": "furthest_point_sample", "GatherOperation": "gather_operation",
             "ThreeNN": "three_nn", "ThreeInterpolate": "three_interpolate",
             "GroupingOperation": "grouping_operation", "BallQuery": "ball_query"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_published_functions_are_called_by_apply(name):
    assert getattr(pointnet2_utils, name).apply is getattr(pointnet2_utils, FUNCTIONS[name])


def test_gradients_of_published_functions():
    """Features get the gradient of every place that they were taken to, by its weight."""
    features = torch.arange(6.0).view(1, 2, 3).requires_grad_()
    pointnet2_utils.GatherOperation.apply(features, torch.tensor([[2, 2]])).sum().backward()
    assert features.grad.tolist() == [[[0, 0, 2], [0, 0, 2]]]
    features.grad = None
    grouped = pointnet2_utils.GroupingOperation.apply(features, torch.tensor([[[0, 1], [1, 1]]]))
    assert grouped.tolist() == [[[[0, 1], [1, 1]], [[3, 4], [4, 4]]]]
    grouped.sum().backward()
    assert features.grad.tolist() == [[[1, 3, 0], [1, 3, 0]]]
    features.grad, weight = None, torch.tensor([[[0.5, 0.25, 0.25]]])
    mixed = pointnet2_utils.ThreeInterpolate.apply(features, torch.tensor([[[0, 1, 2]]]), weight)
    assert mixed.tolist() == [[[0.75], [3.75]]]
    mixed.sum().backward()
    assert features.grad.tolist() == [[[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]]


def test_a_group_moves_with_its_points_and_against_its_centre():
    xyz, centre = torch.tensor([[[1.0, 0, 0], [0, 2, 0]]], requires_grad=True), torch.zeros(1, 1, 3, requires_grad=True)
    grouped = pointnet2_utils.QueryAndGroup(1.5, 2)(xyz, centre)
    assert grouped.tolist() == [[[[1, 1]], [[0, 0]], [[0, 0]]]]
    grouped.sum().backward()
    assert xyz.grad.tolist() == [[[2, 2, 2], [0, 0, 0]]]
    assert centre.grad.tolist() == [[[-2, -2, -2]]]
    xyz.grad, features = None, torch.ones(1, 4, 2, requires_grad=True)
    pointnet2_utils.GroupAll()(xyz, None, features).sum().backward()
    assert xyz.grad.eq(1).all()
    assert features.grad.eq(1).all()


def test_knn_layouts():
    ref, query = CLOUDS["random"]
    distance, index = ops.knn(ref, query, 4)
    rows = KNN(k=4, transpose_mode=True)(ref, query)
    assert rows[0].equal(distance)
    assert rows[1].equal(index)
    columns = KNN(4)(ref.mT.contiguous(), query.mT.contiguous())
    assert columns[0].equal(distance.mT)
    assert columns[1].equal(index.mT)
    assert columns[1].is_contiguous()
    assert columns[1].dtype == torch.int64


@pytest.mark.parametrize("integer", [torch.int32, torch.int64])
def test_pointnet2_functions(integer):
    xyz, centres = CLOUDS["random"]
    features = torch.randn(2, 6, xyz.shape[1], generator=torch.Generator().manual_seed(1))
    picked = pointnet2_utils.furthest_point_sample(xyz, 9)
    groups = pointnet2_utils.ball_query(0.7, 5, xyz, centres)
    distance, nearest = pointnet2_utils.three_nn(centres, xyz)
    assert picked.dtype == groups.dtype == nearest.dtype == torch.int32
    assert picked.long().equal(ops.furthest_point_sample(xyz, 9))
    assert groups.long().equal(ops.ball_query(xyz, centres, 0.7, 5))
    assert distance.equal(ops.three_nn(centres, xyz)[0])
    assert nearest.long().equal(ops.knn(xyz, centres, 3)[1])

    picked, groups, nearest = (value.to(integer) for value in (picked, groups, nearest))
    for b in range(2):
        gathered = pointnet2_utils.gather_operation(features, picked)
        assert gathered[b].equal(features[b][:, picked[b].long()])
        grouped = pointnet2_utils.grouping_operation(features, groups)
        assert grouped[b].equal(features[b][:, groups[b].long()])
        weight = torch.softmax(-distance, -1)
        mixed = pointnet2_utils.three_interpolate(features, nearest, weight)
        expected = (features[b][:, nearest[b].long()] * weight[b]).sum(-1)
        torch.testing.assert_close(mixed[b], expected)


def test_query_and_group():
    xyz, centres = CLOUDS["random"]
    features = torch.randn(2, 6, xyz.shape[1], generator=torch.Generator().manual_seed(1)).requires_grad_()
    both = pointnet2_utils.QueryAndGroup(0.7, 5)(xyz, centres, features)
    assert both.shape == (2, 9, centres.shape[1], 5)
    index = ops.ball_query(xyz, centres, 0.7, 5)
    assert both[1, :3, 2, 4].equal(xyz[1, index[1, 2, 4]] - centres[1, 2])
    assert both[1, 3:, 2, 4].equal(features[1, :, index[1, 2, 4]])
    assert pointnet2_utils.QueryAndGroup(0.7, 5, use_xyz=False)(xyz, centres, features).equal(both[:, 3:])
    assert pointnet2_utils.QueryAndGroup(0.7, 5)(xyz, centres).equal(both[:, :3])
    with pytest.raises(ValueError, match="without features"):
        pointnet2_utils.QueryAndGroup(0.7, 5, use_xyz=False)(xyz, centres)
    both.sum().backward()
    assert features.grad[0, 0].sum().item() == index[0].numel()


def test_group_all():
    xyz, centres = CLOUDS["random"]
    features = torch.randn(2, 6, xyz.shape[1], generator=torch.Generator().manual_seed(1))
    both = pointnet2_utils.GroupAll()(xyz, centres, features)
    assert both.equal(torch.cat([xyz.mT, features], 1).unsqueeze(2))
    assert pointnet2_utils.GroupAll(use_xyz=False)(xyz, None, features).equal(both[:, 3:])
    assert pointnet2_utils.GroupAll()(xyz, None).equal(both[:, :3])
