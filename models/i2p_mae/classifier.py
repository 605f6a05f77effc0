"""The fine-tuning models of I2P-MAE: its encoder, seeing everything, and a classification head."""
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from models.build import MODELS
from models.i2p_mae.encoder import HierarchicalEncoder, Radii, Scales, check_scales, group_scales
from models.interface import Loadable
from models.layers.heads import build_head
from models.layers.init import init_truncated_normal
from utils.errors import ConfigError
from utils.key_types import Fraction, PositiveInt


class HierarchicalClassifier(Loadable):
    """Coarsest tokens → norm → pooling → three-layer head; attention is local in every scale.

    Subclasses differ in pooling: what ``pool`` makes of the tokens, and ``pooled``, how many times as wide it is.

    Keys:
        group_sizes: points a patch of the finest scale, then tokens that are merged into one.
        num_groups: tokens of each scale.
        encoder_depths: blocks of each scale.
        encoder_dims: width of each scale.
        local_radius: how far attention reaches in each scale, in the unit of the clouds; 0 for everywhere.
        drop_path_rate: of the last block; it rises linearly from 0 over all scales.
        num_heads: heads of attention.
        cls_dim: classes; null stands for as many as the data's folders tell.
        smooth: share of a label that the other classes have in training.
    """

    # a pretrained model lacks norm and head; what it has for reconstruction may be left over
    optional_weights = ("norm.", "cls_head_finetune.")
    unused_weights = ("mask_token", r"h_encoder\.encoder_norms\.", r"h_decoder\.", r"decoder_pos_embeds\.",
                      r"token_prop\.", r"decoder_norm\.", r"rec_head(_[23]d)?\.", r"clip_model\.")
    test_transforms = ("ScaleAndTranslate",)
    pooled = 1

    def __init__(self, *, group_sizes: Scales, num_groups: Scales = (512, 256, 64), encoder_depths: Scales = (5, 5, 5),
                 encoder_dims: Scales = (96, 192, 384), local_radius: Radii, drop_path_rate: Fraction = 0.1,
                 num_heads: PositiveInt = 6, cls_dim: PositiveInt | None, smooth: Fraction = 0.0) -> None:
        super().__init__()
        check_scales(num_groups, group_sizes, encoder_depths, encoder_dims, num_heads)
        if cls_dim is None:
            raise ConfigError("key 'model.cls_dim' is missing: the data does not say how many classes there are")
        self.num_groups, self.group_sizes, self.smooth = list(num_groups), list(group_sizes), smooth
        self.cls_dim = cls_dim
        self.h_encoder = HierarchicalEncoder(encoder_depths, encoder_dims, num_heads, drop_path_rate, local_radius)
        self.norm = nn.LayerNorm(encoder_dims[-1])
        self.cls_head_finetune = build_head(self.pooled * encoder_dims[-1], cls_dim, "full")
        self.apply(init_truncated_normal)

    def forward(self, points, label=None):
        """Classify clouds (B, N, 3).

        Returns a dict with ``logits`` (B, classes) and, where ``label`` (B) is given, ``loss`` (cross-entropy, in
        training mode against smoothed labels) and ``acc`` in percent.
        """
        logits = self.cls_head_finetune(self.forward_features(points)).float()
        if label is None:
            return {"logits": logits}
        accuracy = (logits.argmax(-1) == label).float().mean() * 100
        loss = smoothed_cross_entropy(logits, label, self.smooth if self.training else 0.0)
        return {"logits": logits, "loss": loss, "acc": accuracy}

    @property
    def least_points(self):
        """The number of points that a cloud must have."""
        return max(self.num_groups[0], self.group_sizes[0])

    def forward_features(self, points):
        """Return the pooled features (B, C or 2C) of clouds (B, N, 3)."""
        tokens = self.h_encoder(*group_scales(points, self.num_groups, self.group_sizes))[-1]
        return self.pool(self.norm(tokens))


def smoothed_cross_entropy(logits: torch.Tensor, label: torch.Tensor, smooth: float) -> torch.Tensor:
    """Return the cross-entropy of ``logits`` (B, C) against 1 - ``smooth`` at ``label`` (B), the rest shared elsewhere.

    The rest is shared by the other C - 1 classes (I2P-MAE, after DGCNN); torch's own smoothing shares it by all C.
    """
    classes = logits.shape[1]
    if not smooth or classes == 1:
        return F.cross_entropy(logits, label)
    target = torch.full_like(logits, smooth / (classes - 1)).scatter_(1, label.unsqueeze(1), 1 - smooth)  # B C
    return F.cross_entropy(logits, target)


@MODELS.register
class I2P_MAE_ModelNet40(HierarchicalClassifier):
    """Mean of the tokens plus their maximum; for ModelNet40."""

    train_transforms = ("ScaleAndTranslate",)

    def __init__(self, *, group_sizes: Scales = (48, 24, 24), local_radius: Radii = (0.24, 0.48, 0.96),
                 cls_dim: PositiveInt | None = 40, **encoder: Any) -> None:
        super().__init__(group_sizes=group_sizes, local_radius=local_radius, cls_dim=cls_dim, **encoder)

    def pool(self, tokens):
        """(B, G, C) → (B, C)."""
        return tokens.mean(1) + tokens.max(1).values


@MODELS.register
class I2P_MAE_ScanObjectNN(HierarchicalClassifier):
    """Mean of the tokens ‖ their maximum; for ScanObjectNN."""

    pooled = 2
    train_transforms = ("Scale", "Rotate")

    def __init__(self, *, group_sizes: Scales = (32, 16, 16), local_radius: Radii = (0.32, 0.64, 1.28),
                 cls_dim: PositiveInt | None = 15, **encoder: Any) -> None:
        super().__init__(group_sizes=group_sizes, local_radius=local_radius, cls_dim=cls_dim, **encoder)

    def pool(self, tokens):
        """(B, G, C) → (B, 2C)."""
        return torch.cat([tokens.mean(1), tokens.max(1).values], -1)
