"""k nearest neighbours with the signature of the published ``KNN_CUDA`` package, on any device."""
from torch import nn

from extensions.ops import knn


class KNN(nn.Module):
    """``forward(ref, query)`` → Euclidean distances, ascending, and int64 indices into ref; no gradient.

    With ``transpose_mode`` clouds are (B, N, D) and (B, M, D), results (B, M, k); without, (B, D, N) and (B, D, M),
    results (B, k, M). ``k`` above N is a ValueError.
    """

    def __init__(self, k, transpose_mode=False):
        super().__init__()
        self.k, self.transpose_mode = k, transpose_mode

    def forward(self, ref, query):
        if self.transpose_mode:
            return knn(ref, query, self.k)
        distance, index = knn(ref.transpose(1, 2), query.transpose(1, 2), self.k)
        return distance.transpose(1, 2).contiguous(), index.transpose(1, 2).contiguous()
