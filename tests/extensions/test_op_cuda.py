"""The CUDA kernels give what the CPU ones give."""
import pytest
import torch
from op_samples import SAMPLES, SIZES, Sample, large_sample, one_of_each, strided
from test_op_contracts import DIFFERENTIABLE, INTERNAL, with_gradient
from test_op_values import call

import extensions
from extensions import ops

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def on_gpu(sample, form=lambda value: value):
    return Sample(*sample[:2], tuple(form(value).cuda() if isinstance(value, torch.Tensor) else value
                                     for value in sample.arguments))


def check(sample, form=lambda value: value, **tolerance):
    for result, expected in zip(call(sample.operator, on_gpu(sample, form).arguments),
                                call(sample.operator, sample.arguments), strict=True):
        assert result.is_cuda
        torch.testing.assert_close(result.cpu(), expected, **({"rtol": 2e-6, "atol": 2e-6} | tolerance))


def test_the_compiled_kernels_serve():
    assert extensions.backend("cuda") == "compiled CUDA"


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_value(sample):
    check(sample)


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.name == "random"], ids=str)
def test_strided_input(sample):
    check(sample, strided)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_larger_sizes(size):
    check(large_sample(*size), rtol=1e-6, atol=0)


@pytest.mark.parametrize("sample", [s for s in one_of_each() if s.operator in DIFFERENTIABLE], ids=str)
def test_gradcheck(sample):
    arguments = [value.double().requires_grad_() if isinstance(value, torch.Tensor) and value.is_floating_point()
                 else value for value in on_gpu(sample).arguments]
    function = getattr(ops, sample.operator)
    torch.autograd.gradcheck(lambda *values: function(*values)[:2] if sample.operator == "chamfer"
                             else function(*values), arguments, fast_mode=True, nondet_tol=1e-12)


@pytest.mark.parametrize("sample", one_of_each() + one_of_each("empty_batch"), ids=str)
def test_opcheck(sample):
    sample = on_gpu(sample)
    if sample.operator in DIFFERENTIABLE:
        sample = with_gradient(sample)
    torch.library.opcheck(getattr(torch.ops.act_ops, sample.operator).default, sample.arguments)


@pytest.mark.parametrize("sample", [s for s in one_of_each() if s.operator not in INTERNAL], ids=str)
def test_compiled(sample):
    torch._dynamo.reset()
    function, arguments = getattr(ops, sample.operator), on_gpu(sample).arguments
    results = function(*arguments), torch.compile(function, fullgraph=True)(*arguments)
    for one, two in zip(*(value if isinstance(value, tuple) else (value,) for value in results), strict=True):
        assert one.equal(two)


def test_the_current_stream_and_device_are_used():
    xyz = torch.rand(4, 2048, 3, device="cuda")
    expected = ops.furthest_point_sample(xyz, 64)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late = xyz + 0
        result = ops.furthest_point_sample(late, 64)
        assert not stream.query()  # nothing waited for the device
    stream.synchronize()
    assert result.equal(expected)


def test_gradients_are_the_same_every_time():
    """And deterministic algorithms may be asked for: no float is summed atomically."""
    generator = torch.Generator("cuda").manual_seed(0)
    features = torch.randn(4, 16, 300, device="cuda", generator=generator, requires_grad=True)
    idx = torch.randint(300, (4, 100, 32), device="cuda", generator=generator)
    clouds = [torch.rand(2, 3000, 3, device="cuda", generator=generator, requires_grad=True) for _ in range(2)]
    torch.use_deterministic_algorithms(True)
    try:
        runs = [(*torch.autograd.grad(ops.group_points(features, idx).square().sum(), features),
                 *torch.autograd.grad(sum(dist.sum() for dist in ops.chamfer(*clouds)[:2]), clouds)) for _ in range(3)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(one.equal(two) for run in runs for one, two in zip(run, runs[0], strict=True))


def test_the_current_device_is_used():
    """On whatever device the tensors are, and not that of torch."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two devices")
    xyz = torch.rand(2, 500, 3, device="cuda:1")
    assert ops.knn(xyz, xyz, 5)[1].device == xyz.device
    assert torch.cuda.current_device() == 0
    with pytest.raises(ValueError, match="ref is on cuda:1 and query is on cuda:0"):
        ops.knn(xyz, xyz.to("cuda:0"), 5)


def test_not_a_number_shows():
    xyz, other = torch.rand(2, 2, 100, 3, device="cuda")
    xyz[0, 3, 1] = float("nan")
    dist1, dist2, idx1, idx2 = ops.chamfer(xyz, other)
    assert dist1[0, 3].isnan()
    assert dist2[0].isnan().all()
    assert not dist1[1].isnan().any()
    for index in (idx1, idx2, ops.knn(xyz, other, 100)[1], ops.furthest_point_sample(xyz, 100)):
        assert 0 <= index.min() <= index.max() < 100
