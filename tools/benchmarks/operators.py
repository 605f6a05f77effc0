"""The operators' part of the benchmark: each beside what one would otherwise take."""
import importlib.util
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F

from extensions import kernels, ops
from tools.benchmarks.timing import median_ms, surfaces

# the sizes that the models and the data sets need: batch, points, then what is asked
FPS = ((32, 1024, 64), (32, 2048, 128), (32, 8192, 1200), (8, 16384, 1024))
KNN = ((128, 1024, 64, 32), (32, 2048, 128, 32), (128, 64, 64, 4), (8, 8192, 512, 32))  # ..., queries, k
CHAMFER = ((8192, 32, 32), (8192, 8, 32), (1, 2048, 2048))
LAYERS = ((512, 32, 512, 384), (4096, 16, 512, 96))  # patches, points, channels given and made


def measure_ops(device):
    """Return a row for each operator and size: ``op``, ``size``, ``ms`` and the ``peers``' times."""
    return [*(measure_fps(*size, device) for size in FPS), *(measure_knn(*size, device) for size in KNN),
            *(measure_chamfer(*size, device) for size in CHAMFER), *measure_index_ops(device),
            *(measure_linear_max(*size, device) for size in LAYERS), *(measure_norm(*size, device) for size in LAYERS)]


def row(op, size, device, function, **peers):
    """Measure ``function`` and the ``peers`` that are there."""
    times = {name.replace("_", " "): median_ms(peer, device) for name, peer in peers.items() if peer}
    return {"op": op, "size": size, "ms": median_ms(function, device), "peers": times}


def measure_fps(batch, points, npoint, device):
    xyz = surfaces(batch, points, device)
    return row("furthest_point_sample", f"{batch}x({points}->{npoint})", device,
               lambda: ops.furthest_point_sample(xyz, npoint),
               pure_PyTorch=lambda: kernels.furthest_point_sample(xyz, npoint), fpsample=fpsample_loop(xyz, npoint))


def measure_knn(batch, points, queries, k, device):
    ref = surfaces(batch, points, device)
    query = ref[:, :queries].contiguous()
    return row("knn", f"{batch}x{queries} in {points}, k={k}", device, lambda: ops.knn(ref, query, k),
               pure_PyTorch=lambda: kernels.knn(ref, query, k),
               cdist_topk=lambda: torch.cdist(query, ref).topk(k, largest=False), cKDTree=ckdtree_loop(ref, query, k))


def measure_chamfer(batch, points1, points2, device):
    xyz1, xyz2 = (surfaces(batch, points, device).requires_grad_() for points in (points1, points2))
    return row("chamfer, forward + backward", f"{batch}x({points1}, {points2})", device,
               lambda: chamfer_step(ops.chamfer, xyz1, xyz2),
               pure_PyTorch=lambda: chamfer_step(PythonChamfer.apply, xyz1, xyz2),
               cdist=lambda: chamfer_step(cdist_chamfer, xyz1, xyz2))


def measure_index_ops(device):
    """Return rows of the operators that the faces and segmentation use."""
    xyz, queries = surfaces(32, 2048, device), surfaces(32, 512, device)
    features = torch.randn(32, 128, 512, device=device)
    distance, index = ops.three_nn(xyz, queries)
    group = torch.randint(512, (32, 128, 32), device=device)
    return [
        beside_python("ball_query", "32x512 in 2048, 32 each", device, xyz, queries, 0.2, 32),
        beside_python("three_nn", "32x2048 in 512", device, xyz, queries),
        beside_python("three_interpolate", "32x128x512 to 2048", device, features, index,
                      torch.softmax(-distance, -1)),
        beside_python("group_points", "32x128x512 by 128x32", device, features, group),
        beside_python("gather_points", "32x128x512 by 128", device, features, group[..., 0].contiguous()),
    ]


def beside_python(name, size, device, *given):
    return row(name, size, device, lambda: getattr(ops, name)(*given),
               pure_PyTorch=lambda: getattr(kernels, name)(*given))


def measure_linear_max(patches, points, given, made, device):
    x, weight, bias = (torch.randn(size, device=device).requires_grad_()
                       for size in ((patches, points, given), (made, given), (made,)))
    gradient = torch.randn(patches, made, device=device)
    return row("linear_max, forward + backward", f"{patches}x{points}x({given}->{made})", device,
               lambda: torch.autograd.grad(ops.linear_max(x, weight, bias), (x, weight, bias), gradient),
               pure_PyTorch=lambda: torch.autograd.grad(
                   F.linear(x, weight, bias).max(1).values, (x, weight, bias), gradient))


def measure_norm(patches, points, channels, _, device):
    x, offset, weight, bias = (torch.randn(size, device=device).requires_grad_() for size in (
        (patches, points, channels), (patches, channels), (channels,), (channels,)))
    gradient = torch.randn(x.shape, device=device)

    def layers():
        whole = (x + offset.unsqueeze(1)).flatten(0, 1)
        return F.batch_norm(whole, None, None, weight, bias, training=True).relu_().view(x.shape)

    return row("norm_relu, forward + backward", f"{patches}x{points}x{channels}", device,
               lambda: torch.autograd.grad(ops.norm_relu(x, offset, weight, bias, 1e-5)[0],
                                           (x, offset, weight, bias), gradient),
               pure_PyTorch=lambda: torch.autograd.grad(layers(), (x, offset, weight, bias), gradient))


class PythonChamfer(torch.autograd.Function):
    """Chamfer by the pure-PyTorch kernels, forward and backward."""

    @staticmethod
    def forward(ctx, xyz1, xyz2):
        dist1, dist2, idx1, idx2 = kernels.chamfer(xyz1, xyz2)
        ctx.save_for_backward(xyz1, xyz2, idx1, idx2)
        return dist1, dist2

    @staticmethod
    def backward(ctx, grad1, grad2):
        return kernels.chamfer_backward(grad1, grad2, *ctx.saved_tensors)


def cdist_chamfer(xyz1, xyz2):
    distance = torch.cdist(xyz1, xyz2).square()
    return distance.min(2).values, distance.min(1).values


def chamfer_step(function, xyz1, xyz2):
    """Chamfer-L2 and its gradient."""
    dist1, dist2 = function(xyz1, xyz2)[:2]
    torch.autograd.grad(dist1.mean() + dist2.mean(), (xyz1, xyz2))


def fpsample_loop(xyz, npoint):
    """Return a call of fpsample's exact sampling on each cloud, on as many threads; None where it isn't installed."""
    if xyz.is_cuda or importlib.util.find_spec("fpsample") is None:
        return None
    import fpsample

    clouds, height = xyz.numpy(), 5 if xyz.shape[1] > 4096 else 3  # the fastest at these sizes
    pool = ThreadPoolExecutor(torch.get_num_threads())
    return lambda: list(pool.map(
        lambda cloud: fpsample.bucket_fps_kdline_sampling(cloud, npoint, h=height, start_idx=0), clouds))


def ckdtree_loop(ref, query, k):
    """Return SciPy's search of each cloud, on as many threads; None where SciPy isn't installed."""
    if ref.is_cuda or importlib.util.find_spec("scipy") is None:
        return None
    from scipy.spatial import cKDTree

    workers = torch.get_num_threads()
    refs, queries = ref.numpy(), query.numpy()
    return lambda: [cKDTree(points).query(asked, k, workers=workers) for points, asked in
                    zip(refs, queries, strict=True)]
