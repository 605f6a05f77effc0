"""The fine-tuning model: the student's encoder and a classification head."""
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from models.act.point_encoder import PointEncoder, pool
from models.build import MODELS
from models.layers.heads import build_head
from models.layers.init import init_truncated_normal
from models.layers.patches import PatchEncoder, group
from utils.errors import ConfigError
from utils.key_types import Fraction, OneOf, PositiveInt
from utils.weight_names import BESIDE_ENCODER, ENCODERS

# a parameter trains under a transfer type if its name contains one of these; as published, "cls" is in the head's name
TRAINABLE_SUBSTRINGS = {
    "full": ("",), "linear": ("cls",), "mlp-3": ("cls",), "side": ("cls", "side"), "bit-fit": ("cls", "bias")}


@MODELS.register
class PointTransformer(PointEncoder):
    """Class token ‖ max of the tokens → head (ACT, section 5).

    The head is one linear layer for the transfer type ``linear`` and an MLP of three otherwise.

    Keys:
        embed_dim: width of the Transformer.
        depth: blocks of the Transformer.
        num_heads: heads of attention.
        drop_path_rate: of the last block; it rises linearly from 0.
        encoder_dims: width of the patch encoder.
        cls_dim: classes; null stands for as many as the data's folders tell.
        group_size: points a patch.
        num_group: patches a cloud.
        transfer_type: ``full`` trains everything; ``linear`` and ``mlp-3`` the head, the class token and its position;
            ``side`` these and a second patch encoder, ``side``, whose projected tokens are blended in before the
            maximum; ``bit-fit`` the head, the class token, its position and all biases.
        head_only: makes ``linear`` and ``mlp-3`` a probe: the class token and its position are not trained, and the
            encoder stays in evaluation mode, so that the statistics of its norms are held still and nothing is dropped.
    """

    # a pretrained student lacks a head; its own parts that classification does not use may be left over
    optional_weights = ("cls_head_finetune.", "side.", "side_")
    unused_weights = BESIDE_ENCODER
    weight_prefixes = ENCODERS
    train_transforms = ("Rotate",)
    test_transforms = ("ScaleAndTranslate",)

    def __init__(self, *, embed_dim: PositiveInt = 384, depth: PositiveInt = 12, num_heads: PositiveInt = 6,
                 drop_path_rate: Fraction = 0.1, encoder_dims: PositiveInt = 384, cls_dim: PositiveInt | None = None,
                 group_size: PositiveInt = 32, num_group: PositiveInt = 64,
                 transfer_type: Annotated[str, OneOf(TRAINABLE_SUBSTRINGS)] = "full", head_only: bool = False) -> None:
        if cls_dim is None:
            raise ConfigError("key 'model.cls_dim' is missing: the data does not say how many classes there are")
        if head_only and transfer_type not in ("linear", "mlp-3"):
            raise ConfigError(f"model.head_only is for transfer_type linear and mlp-3, not '{transfer_type}'")
        super().__init__(embed_dim=embed_dim, encoder_dims=encoder_dims, depth=depth, num_heads=num_heads,
                         drop_path_rate=drop_path_rate)
        self.group_size, self.num_group, self.transfer_type = group_size, num_group, transfer_type
        self.head_only = head_only
        self.cls_dim = cls_dim
        self.cls_head_finetune = build_head(2 * embed_dim, cls_dim, transfer_type)
        if transfer_type == "side":
            self.side = PatchEncoder(embed_dim)
            self.side_projection = nn.Linear(embed_dim, embed_dim, bias=False)
            self.side_alpha = nn.Parameter(torch.zeros(1))
        self.apply(init_truncated_normal)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.cls_pos, std=0.02)
        self.freeze()

    def upgrade_weights(self, weights):
        """Files of the first version hold a side network without projection, and its share as a number."""
        if "side_alpha" not in weights or "side_projection.weight" in weights:
            return weights
        weights = {key.replace("side_encoder.", "side."): value for key, value in weights.items()}
        return weights | {"side_alpha": weights["side_alpha"].reshape(1),
                          "side_projection.weight": torch.eye(self.cls_token.shape[-1])}

    def freeze(self):
        """Leave gradients to the parameters that train under ``transfer_type``."""
        trained = ("cls_head_finetune.",) if self.head_only else TRAINABLE_SUBSTRINGS[self.transfer_type]
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(any(part in name for part in trained))

    def train(self, mode=True):
        """Switch the mode; with ``head_only`` the head's alone."""
        super().train(mode and not self.head_only)
        self.cls_head_finetune.train(mode)
        return self

    def forward(self, points, label=None):
        """Classify clouds (B, N, 3).

        Returns a dict with ``logits`` (B, classes) and, where ``label`` (B) is given, ``loss`` (cross-entropy) and
        ``acc`` in percent.
        """
        logits = self.cls_head_finetune(self.forward_features(points)).float()
        if label is None:
            return {"logits": logits}
        accuracy = (logits.argmax(-1) == label).float().mean() * 100
        return {"logits": logits, "loss": F.cross_entropy(logits, label), "acc": accuracy}

    @property
    def least_points(self):
        """The number of points that a cloud must have."""
        return max(self.num_group, self.group_size)

    def forward_features(self, points):
        """Return the pooled features (B, 2C) of clouds (B, N, 3)."""
        neighborhood, center = group(points, self.num_group, self.group_size)
        x, _ = self.encode(self.tokens(neighborhood), center)
        if self.transfer_type == "side":
            share, side = self.side_alpha.sigmoid(), self.side_projection(self.side(neighborhood))
            x = torch.cat([x[:, :1], share * x[:, 1:] + (1 - share) * side], 1)
        return pool(x)
