"""What torch asks of an operator: derivatives, schemas, compilation, autocast, dispatch."""
import op_oracle
import pytest
import torch
from op_samples import CLOUDS, SAMPLES, Sample, one_of_each, strided

import extensions
from extensions import ops

pytestmark = pytest.mark.slow

DIFFERENTIABLE = ("chamfer", "gather_points", "group_points", "three_interpolate", "linear_max", "norm_relu")
LAYERS = ("linear_max", "norm_relu")
INTERNAL = ["max_points", *(s.operator for s in one_of_each() if s.operator.endswith("_backward"))]


def floats(arguments):
    return [value for value in arguments if isinstance(value, torch.Tensor) and value.is_floating_point()]


def with_gradient(sample):
    """The sample with fresh floating tensors that want a gradient."""
    return Sample(*sample[:2], tuple(
        value.detach().clone().requires_grad_() if isinstance(value, torch.Tensor) and value.is_floating_point()
        else value for value in sample.arguments))


def gradients(function, sample):
    """Run ``function`` on the sample; return its results and the gradients of a sum with unequal weights."""
    sample = with_gradient(sample)
    results = function(*sample.arguments)
    results = results if isinstance(results, tuple) else (results,)
    total = sum((value * torch.linspace(1, 2, value.numel()).view(value.shape)).sum() for value in floats(results))
    return results, torch.autograd.grad(total, floats(sample.arguments))


def assert_equal(one, two):
    assert len(one) == len(two)
    for value, other in zip(one, two, strict=True):
        assert value.dtype == other.dtype
        assert value.equal(other)


@pytest.mark.parametrize("name", ["random", "one_in_many"])
@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_gradcheck(operator, name):
    sample = next(sample for sample in one_of_each(name) if sample.operator == operator)
    arguments = [value.double().requires_grad_() if isinstance(value, torch.Tensor) and value.is_floating_point()
                 else value for value in sample.arguments]

    def differentiable(*values):
        result = getattr(ops, operator)(*values)
        return result[:{"chamfer": 2, "norm_relu": 1}[operator]] if isinstance(result, tuple) else result

    assert torch.autograd.gradcheck(differentiable, arguments, fast_mode=True)


@pytest.mark.parametrize("name", CLOUDS)
def test_chamfer_gradient_at_ties(name):
    """Where the nearest is not unique the gradient goes to the one that the index names."""
    xyz1, xyz2 = (cloud.clone().requires_grad_() for cloud in CLOUDS[name])
    dist1, dist2, idx1, idx2 = ops.chamfer(xyz1, xyz2)
    weights = [torch.linspace(1, 2, dist.numel()).view(dist.shape) for dist in (dist1, dist2)]
    found = torch.autograd.grad((dist1, dist2), (xyz1, xyz2), weights)
    plain = [value.detach().numpy() for value in (*weights, xyz1.double(), xyz2.double(), idx1, idx2)]
    for one, two in zip(found, op_oracle.chamfer_backward(*plain), strict=True):
        torch.testing.assert_close(one.double(), torch.from_numpy(two), rtol=2e-6, atol=2e-6)
    assert not idx1.requires_grad
    assert not idx2.requires_grad


def test_one_direction_alone():
    """A loss of one of chamfer's results has the gradient of that direction only."""
    xyz1, xyz2 = (cloud.clone().requires_grad_() for cloud in CLOUDS["random"])
    dist1, _, idx1, _ = ops.chamfer(xyz1, xyz2)
    found, = torch.autograd.grad(dist1.sum(), xyz1)
    nearest = xyz2.gather(1, idx1.unsqueeze(-1).expand(-1, -1, 3))
    torch.testing.assert_close(found, 2 * (xyz1 - nearest))


def test_geometry_alone_has_no_gradient():
    """Searches take tensors that want a gradient, and give results without one."""
    xyz, other = (cloud.clone().requires_grad_() for cloud in CLOUDS["random"])
    results = (ops.furthest_point_sample(xyz, 4), *ops.knn(xyz, other, 3), ops.ball_query(xyz, other, 0.5, 4),
               *ops.three_nn(other, xyz))
    assert not any(result.requires_grad for result in results)


@pytest.mark.parametrize("form", [lambda value: value, strided], ids=["contiguous", "strided"])
@pytest.mark.parametrize("sample", one_of_each() + one_of_each("empty_batch"), ids=str)
def test_opcheck(sample, form):
    if sample.operator in DIFFERENTIABLE:
        sample = with_gradient(sample)
    operator = getattr(torch.ops.act_ops, sample.operator).default
    torch.library.opcheck(operator, tuple(form(value) for value in sample.arguments))


def test_every_operator_has_a_sample():
    defined = {str(schema).split("(")[0] for schema in extensions.schemas.SCHEMAS}
    assert {sample.operator for sample in SAMPLES} == defined
    assert {sample.operator for sample in one_of_each()} == defined


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("sample", [s for s in one_of_each() if s.operator not in INTERNAL], ids=str)
def test_compiled(sample, dynamic):
    """One graph, static or with free shapes, and the same bits as without compilation, gradients included."""
    torch._dynamo.reset()
    function = getattr(ops, sample.operator)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    if sample.operator in DIFFERENTIABLE:
        plain, compiled = gradients(function, sample), gradients(compiled, sample)
        assert_equal(plain[0] + plain[1], compiled[0] + compiled[1])
    else:
        results = function(*sample.arguments), compiled(*sample.arguments)
        assert_equal(*(result if isinstance(result, tuple) else (result,) for result in results))


@pytest.mark.parametrize("sample", [s for s in one_of_each() if s.operator not in (*INTERNAL, *LAYERS)], ids=str)
def test_autocast(sample):
    """Under autocast geometry is that of float32; half-precision input is raised to it first."""
    function = getattr(ops, sample.operator)
    halves = [value.bfloat16() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
              for value in sample.arguments]
    raised = [value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
              for value in halves]
    for given, equivalent in ((sample.arguments, sample.arguments), (halves, raised)):
        expected = function(*equivalent)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = function(*given)
        assert_equal(*(value if isinstance(value, tuple) else (value,) for value in (result, expected)))
        assert not any(value.dtype == torch.bfloat16 for value in floats(result))


def test_a_layer_follows_autocast():
    """A linear layer with a maximum is computed as torch's own is, gradients included."""
    generator = torch.Generator().manual_seed(3)
    x, weight, bias = (torch.randn(shape, generator=generator).requires_grad_() for shape in ((4, 6, 8), (5, 8), (5,)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ops.linear_max(x, weight, bias)
        expected = torch.nn.functional.linear(x, weight, bias).max(1).values
    assert found.dtype == torch.bfloat16
    grads = [torch.autograd.grad(value.float().square().sum(), (x, weight, bias)) for value in (found, expected)]
    assert_equal((found, *grads[0]), (expected, *grads[1]))


def test_gradient_reaches_half_precision_input():
    xyz1, xyz2 = CLOUDS["random"]
    half = xyz1.bfloat16().requires_grad_()
    ops.chamfer(half, xyz2)[0].sum().backward()
    assert half.grad.dtype == torch.bfloat16
    full = half.detach().float().requires_grad_()
    ops.chamfer(full, xyz2)[0].sum().backward()
    assert half.grad.equal(full.grad.bfloat16())


def test_a_kernel_for_a_device_displaces_the_python_one(backend):
    """What a compiled kernel does when it is loaded; the derivative still comes from the library's autograd."""
    if backend != "compiled":
        pytest.skip("there the fixture has displaced a kernel already")
    xyz1, xyz2 = CLOUDS["random"]
    expected = ops.chamfer(xyz1, xyz2)
    with torch.library._scoped_library("act_ops", "IMPL") as library:
        library.impl("chamfer", lambda xyz1, xyz2: tuple(value.clone() + 5 for value in expected), "CPU")
        library.impl("chamfer_backward", lambda *values: (values[2] * 3, values[3] * 4), "CPU")
        leaf = xyz1.clone().requires_grad_()
        dist1 = ops.chamfer(leaf, xyz2)[0]
        dist1.sum().backward()
        assert dist1.equal(expected[0] + 5)
        assert leaf.grad.equal(xyz1 * 3)
    assert_equal(ops.chamfer(xyz1, xyz2), expected)
