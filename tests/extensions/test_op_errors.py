"""Wrong input to an operator is one line that names the shapes."""
import pytest
import torch

from extensions import ops


def cloud(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


WRONG = {
    "cannot pick 0 points of xyz (2, 5, 3)": lambda: ops.furthest_point_sample(cloud(2, 5, 3), 0),
    "cannot pick 2 points of xyz (2, 0, 3)": lambda: ops.furthest_point_sample(cloud(2, 0, 3), 2),
    "xyz must be (B, N, 3), not (5, 3)": lambda: ops.furthest_point_sample(cloud(5, 3), 2),
    "xyz must be (B, N, 3), not (2, 3, 5)": lambda: ops.furthest_point_sample(cloud(2, 3, 5), 2),
    "xyz (2, 5, 3) must be floating-point, not torch.int64":
        lambda: ops.furthest_point_sample(cloud(2, 5, 3, dtype=torch.int64), 2),
    "k = 6 neighbours asked of ref (2, 5, 3); k must be from 1 to N":
        lambda: ops.knn(cloud(2, 5, 3), cloud(2, 9, 3), 6),
    "k = 0 neighbours asked of ref (2, 5, 3); k must be from 1 to N":
        lambda: ops.knn(cloud(2, 5, 3), cloud(2, 9, 3), 0),
    "points without coordinates: ref (2, 5, 0), query (2, 9, 0)": lambda: ops.knn(cloud(2, 5, 0), cloud(2, 9, 0), 1),
    "ref is on cpu and query is on meta": lambda: ops.knn(cloud(2, 5, 3), cloud(2, 9, 3).to("meta"), 1),
    "xyz1 is on meta and xyz2 is on cpu": lambda: ops.chamfer(cloud(2, 5, 3).to("meta"), cloud(2, 9, 3)),
    "features is on cpu and idx is on meta":
        lambda: ops.gather_points(cloud(2, 4, 9), cloud(2, 5, dtype=torch.int64).to("meta")),
    "features is on cpu and weight is on meta": lambda: ops.three_interpolate(
        cloud(2, 4, 9), cloud(2, 5, 3, dtype=torch.int64), cloud(2, 5, 3).to("meta")),
    "ref (2, 5, 3) and query (2, 5, 4) differ in batch or coordinates":
        lambda: ops.knn(cloud(2, 5, 3), cloud(2, 5, 4), 1),
    "xyz1 (2, 5, 3) and xyz2 (3, 5, 3) differ in batch or coordinates":
        lambda: ops.chamfer(cloud(2, 5, 3), cloud(3, 5, 3)),
    "xyz1 is torch.float32 and xyz2 is torch.float64":
        lambda: ops.chamfer(cloud(2, 5, 3), cloud(2, 5, 3, dtype=torch.float64)),
    "a cloud without points: xyz1 (2, 0, 3), xyz2 (2, 5, 3)": lambda: ops.chamfer(cloud(2, 0, 3), cloud(2, 5, 3)),
    "features (2, 4, 9) must be (B, C, N) and idx (3, 5) must have 2 axes, B the first":
        lambda: ops.gather_points(cloud(2, 4, 9), cloud(3, 5, dtype=torch.int64)),
    "idx (2, 5, 3) must hold integers, not torch.float32": lambda: ops.group_points(cloud(2, 4, 9), cloud(2, 5, 3)),
    "cannot find 0 points in xyz (2, 5, 3)": lambda: ops.ball_query(cloud(2, 5, 3), cloud(2, 5, 3), 0.1, 0),
    "three neighbours asked of known (2, 2, 3)": lambda: ops.three_nn(cloud(2, 5, 3), cloud(2, 2, 3)),
    "idx (2, 5, 3) and weight (2, 5, 4) must be (B, n, 3)":
        lambda: ops.three_interpolate(cloud(2, 4, 9), cloud(2, 5, 3, dtype=torch.int64), cloud(2, 5, 4)),
    "x must be (P, K, D), K at least 1, not (2, 0, 3)": lambda: ops.linear_max(cloud(2, 0, 3), cloud(4, 3)),
    "x must be (P, K, C) of two points or more, not (1, 1, 3)":
        lambda: ops.norm_relu(cloud(1, 1, 3), None, cloud(3), cloud(3), 1e-5),
    "offset of x (2, 5, 3) must be (P, C)":
        lambda: ops.norm_relu(cloud(2, 5, 3), cloud(5, 3), cloud(3), cloud(3), 1e-5),
    "weight (4,) and bias (3,) must be (C)": lambda: ops.norm_relu(cloud(2, 5, 3), None, cloud(4), cloud(3), 1e-5),
    "weight (4, 2) must be (C, 3)": lambda: ops.linear_max(cloud(2, 5, 3), cloud(4, 2)),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_input(message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        WRONG[message]()
    assert str(error.value) == message


def test_the_compiled_kernels_check_devices_too(backend):
    """Whoever calls past ``ops``: the pointer of another device must not reach a kernel."""
    if backend != "compiled":
        pytest.skip("torch's own operators check it")
    with pytest.raises(RuntimeError, match="the tensors of one operator are on several devices"):
        torch.ops.act_ops.knn.default.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), cloud(1, 5, 3),
                                                 cloud(1, 5, 3).to("meta"), 2)


def test_index_outside_is_an_error(backend):
    with pytest.raises(RuntimeError, match="assertion failed: index" if backend == "emulated" else "out of bounds"):
        ops.gather_points(torch.zeros(1, 2, 4), torch.tensor([[4]]))
