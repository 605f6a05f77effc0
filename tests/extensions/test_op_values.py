"""Every operator, on every sample, equals the naive float64 loops."""
import numpy as np
import op_oracle
import pytest
import torch
from op_samples import CLOUDS, SAMPLES, SIZES, large_sample, strided

from extensions import kernels, ops


def call(operator, arguments):
    """Call an operator, backward ones directly, and return a tuple of its results."""
    function = getattr(ops, operator, None) or getattr(torch.ops.act_ops, operator)
    result = function(*arguments)
    return result if isinstance(result, tuple) else (result,)


def check(operator, arguments):
    """Compare with the oracle: indices exactly, values to float32 precision, shapes and types."""
    plain = [value.double().numpy() if isinstance(value, torch.Tensor) and value.is_floating_point()
             else value.numpy() if isinstance(value, torch.Tensor) else value for value in arguments]
    expected = getattr(op_oracle, operator)(*plain)
    expected = expected if isinstance(expected, tuple) else (expected,)
    results = call(operator, arguments)
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        assert result.is_contiguous()
        assert result.shape == wanted.shape
        if wanted.dtype == np.int64:
            assert result.dtype == torch.int64
            np.testing.assert_array_equal(result.numpy(), wanted)
        else:
            assert result.dtype == torch.float32
            np.testing.assert_allclose(result.numpy(), wanted, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_value(sample):
    check(sample.operator, sample.arguments)


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.name in ("random", "one_in_many")], ids=str)
def test_strided_input(sample):
    arguments = [strided(value) for value in sample.arguments]
    before = [value.clone() if isinstance(value, torch.Tensor) else value for value in arguments]
    check(sample.operator, arguments)
    for value, old in zip(arguments, before, strict=True):
        assert not isinstance(value, torch.Tensor) or value.equal(old)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_larger_sizes(backend, size, dtype):
    """The compiled kernels give the bits of those in pure PyTorch, whose square root may be off by one in the last."""
    if backend == "python":
        pytest.skip("compared with itself")
    sample = large_sample(*size)
    arguments = [value.to(dtype) if isinstance(value, torch.Tensor) else value for value in sample.arguments]
    python = getattr(kernels, sample.operator)(*arguments)
    for result, expected in zip(call(sample.operator, arguments), python if isinstance(python, tuple) else (python,),
                                strict=True):
        assert result.dtype == expected.dtype
        if sample.operator in ("knn", "three_nn") and result.is_floating_point():
            torch.testing.assert_close(result, expected, rtol=2 * torch.finfo(dtype).eps, atol=0)
        else:
            assert result.equal(expected)


@pytest.mark.parametrize("chunk", [1, 40, 200])
@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.operator in ("knn", "chamfer", "ball_query", "three_nn")
                                    and s.name in ("random", "ties", "empty_batch")], ids=str)
def test_in_parts(monkeypatch, backend, sample, chunk):
    """However small the part of the distance matrix held at once, the result is the same."""
    if backend != "python":
        pytest.skip("the compiled kernels hold no distance matrix")
    monkeypatch.setattr(kernels, "CHUNK", chunk)
    check(sample.operator, sample.arguments)


@pytest.mark.parametrize("name", ["random", "ties", "equal"])
def test_float64(name):
    xyz, other = (cloud.double() for cloud in CLOUDS[name])
    distance, index = ops.knn(xyz, other, 5)
    expected = op_oracle.knn(xyz.numpy(), other.numpy(), 5)
    assert distance.dtype == torch.float64
    np.testing.assert_allclose(distance, expected[0], rtol=1e-14)
    np.testing.assert_array_equal(index, expected[1])


def test_knn_in_other_dimensions():
    random = torch.Generator().manual_seed(3)
    for dimensions in (1, 2, 16):
        check("knn", (torch.randn(2, 20, dimensions, generator=random),
                      torch.randn(2, 6, dimensions, generator=random), 4))


def test_fps_skips_points_at_the_origin():
    """Worked by hand: 1 and 3 lie within the threshold, 4 ties with 2."""
    xyz = torch.tensor([[[0, 0, 0], [0.03, 0, 0], [1, 0, 0], [0, 0, 0], [-1, 0, 0], [0.5, 0, 0]]])
    assert ops.furthest_point_sample(xyz, 5).tolist() == [[0, 2, 4, 5, 2]]
    assert ops.furthest_point_sample(xyz, 5, skip_origin=False).tolist() == [[0, 2, 4, 5, 1]]
    assert ops.furthest_point_sample(xyz * 0, 3).tolist() == [[0, 0, 0]]
    on_it = torch.tensor([[[1, 0, 0], [0.001 ** 0.5, 0, 0], [0.032, 0, 0]]])  # the square is ≤ 1e-3, > 1e-3
    assert ops.furthest_point_sample(on_it, 3).tolist() == [[0, 2, 0]]


def test_not_a_number_shows():
    """A NaN must reach the loss, where training stops, and never an index outside the cloud."""
    xyz, other = (cloud.clone() for cloud in CLOUDS["random"])
    xyz[0, 3, 1] = float("nan")
    dist1, dist2, idx1, idx2 = ops.chamfer(xyz, other)
    assert dist1[0, 3].isnan()
    assert dist2[0].isnan().all()
    assert not dist1[1].isnan().any()
    assert 0 <= idx1.min() <= idx1.max() < other.shape[1]
    assert 0 <= idx2.min() <= idx2.max() < xyz.shape[1]
    assert 0 <= ops.furthest_point_sample(xyz, 9).min() <= ops.furthest_point_sample(xyz, 9).max() < xyz.shape[1]


def test_ball_is_open_and_keeps_index_order():
    xyz = torch.tensor([[[2.0, 0, 0], [0.5, 0, 0], [1.0, 0, 0], [0, 0, 0], [0, 0.9, 0]]])
    centres = torch.tensor([[[0.0, 0, 0], [9, 9, 9]]])
    assert ops.ball_query(xyz, centres, 1.0, 4).tolist() == [[[1, 3, 4, 1], [0, 0, 0, 0]]]
    assert ops.ball_query(xyz, centres, 1.0, 2).tolist() == [[[1, 3], [0, 0]]]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(300, 16, 384), (50, 7, 40), (3, 1, 5), (1, 70, 33)], ids=str)
def test_the_maximum_over_points(shape, dtype):
    """Ragged strips, equal values (the first counts) and what is not a number (it is the maximum) included."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(dtype).mul(2).round()
    x[0, shape[1] // 2, ::3] = torch.nan
    x[-1, :, 1::3] = -torch.inf
    values, idx = torch.ops.act_ops.max_points(x)
    torch.testing.assert_close(values, x.amax(1), rtol=0, atol=0, equal_nan=True)
    known = ~values.isnan()
    first = (x == values.unsqueeze(1)).int().argmax(1)
    assert idx[known].equal(first[known])
    assert x.gather(1, idx.unsqueeze(1)).squeeze(1)[~known].isnan().all()


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(50, 16, 40, 7), (7, 200, 33, 20), (3, 1, 64, 5), (1, 8, 5, 3)], ids=str)
def test_the_gradient_of_a_maximum_visits_the_same_points(shape, bias):
    """A linear layer with a maximum has the gradients of the two operations, ragged strips included."""
    patches, group, width, channels = shape
    generator = torch.Generator().manual_seed(2)

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64).requires_grad_()

    inputs = [draw(patches, group, width), draw(channels, width), *([draw(channels)] if bias else [])]
    plain = torch.nn.functional.linear(*inputs).max(1).values
    gradient = torch.randn(plain.shape, generator=generator, dtype=torch.float64)
    expected = torch.autograd.grad(plain, inputs, gradient)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        given = [value.detach().to(dtype).requires_grad_() for value in inputs]
        found = ops.linear_max(*given)
        torch.testing.assert_close(found.double(), plain, rtol=tolerance, atol=tolerance)
        for value, wanted in zip(torch.autograd.grad(found, given, gradient.to(dtype)), expected, strict=True):
            assert value.dtype == dtype
            torch.testing.assert_close(value.double(), wanted, rtol=tolerance, atol=tolerance)
    twice = [torch.autograd.grad(ops.linear_max(*given), given, gradient.float()) for _ in range(2)]
    assert all(one.equal(two) for one, two in zip(*twice, strict=True))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("shape", [(50, 16, 40), (3, 200, 33), (301, 1, 5), (1, 90, 64)], ids=str)
def test_norm_and_relu_in_one_are_the_two_layers(shape, offset):
    """Batch norm in training and a ReLU, of many blocks of rows and an uneven number of patches a thread."""
    patches, group, channels = shape
    generator = torch.Generator().manual_seed(2)

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    x = (3 * draw(*shape) + 5).requires_grad_()
    added, weight, bias = (value.requires_grad_() for value in (draw(patches, channels), draw(channels),
                                                                draw(channels)))
    inputs = [x, weight, bias, *([added] if offset else [])]
    whole = (x + added.unsqueeze(1) if offset else x).flatten(0, 1)
    plain = torch.nn.functional.batch_norm(whole, None, None, weight, bias, training=True).relu().view(shape)
    gradient = draw(*shape)
    expected = torch.autograd.grad(plain, inputs, gradient)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        given = [value.detach().to(dtype).requires_grad_() for value in inputs]
        y, mean, variance = ops.norm_relu(given[0], given[3] if offset else None, *given[1:3], 1e-5)
        for value, wanted in ((y, plain), (mean, whole.mean(0)), (variance, whole.var(0, correction=0))):
            torch.testing.assert_close(value.double(), wanted, rtol=tolerance, atol=tolerance)
        for value, wanted in zip(torch.autograd.grad(y, given, gradient.to(dtype)), expected, strict=True):
            torch.testing.assert_close(value.double(), wanted, rtol=tolerance, atol=tolerance)


def test_not_a_number_passes_a_relu():
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    x[1, 2, 3] = float("nan")
    y = ops.norm_relu(x, None, torch.ones(5), torch.zeros(5), 1e-5)[0]
    assert y[..., 3].isnan().all()
    assert not y[..., :3].isnan().any()
