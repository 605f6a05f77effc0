"""The segmentation model: the student's encoder, and features propagated from the patches to every point."""
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import MinLen
from torch import nn

from models.act.point_encoder import layer_of
from models.build import MODELS
from models.interface import Loadable
from models.layers.feature_propagation import FeaturePropagation
from models.layers.init import init_truncated_normal
from models.layers.patches import PatchEncoder, group, position_mlp
from models.layers.pointwise import norm_relu, pointwise, pointwise_split
from models.layers.transformer import TransformerEncoder
from utils.distributed import mean_all
from utils.errors import ConfigError
from utils.key_types import Fraction, Listed, NonNegativeInt, PositiveInt
from utils.weight_names import BESIDE_ENCODER, CLASS_TOKEN, ENCODERS

PROPAGATION_WIDTH = 1024  # of a point's features
HEAD_WIDTHS = (512, 256)


@MODELS.register
class PointSegmenter(Loadable):
    """A label for every point: of a room (S3DIS) or, with ``num_categories``, of an object of a known category.

    The outputs of three blocks (ACT, appendix; after PointNet++'s feature propagation) are normed, joined, and
    interpolated from the patch centres to all points; their maximum and mean over the patches describe the cloud.

    Keys:
        num_classes: classes of points.
        num_categories: categories of objects; 0 where there is one kind of cloud.
        embed_dim: width of the Transformer.
        depth: blocks of the Transformer.
        num_heads: heads of attention.
        drop_path_rate: of the last block; it rises linearly from 0.
        encoder_dims: width of the patch encoder.
        group_size: points a patch.
        num_group: patches a cloud.
        taps: the blocks, from 1, whose outputs are used.
    """

    # a pretrained student lacks what follows the encoder; its own further parts may be left over
    optional_weights = ("label_conv_cls.", "propagation_0_cls.", "convs", "bns")
    unused_weights = (*BESIDE_ENCODER, *CLASS_TOKEN, r"cls_head_finetune\.")
    weight_prefixes = ENCODERS
    train_transforms = ("ScaleAndShift",)
    test_transforms = ("ScaleAndShift",)
    published_key = "model_state_dict"
    # how Point-MAE's code, from which the published one descends, calls the same weights
    weight_names = {"label_conv.": "label_conv_cls.", "propagation_0.": "propagation_0_cls.", "convs1.": "convs1_cls.",
                    "convs2.": "convs2_cls.", "convs3.": "convs3_cls.", "bns1.": "bns1_cls.", "bns2.": "bns2_cls."}

    def __init__(self, *, num_classes: PositiveInt, num_categories: NonNegativeInt = 0, embed_dim: PositiveInt = 384,
                 depth: PositiveInt = 12, num_heads: PositiveInt = 6, drop_path_rate: Fraction = 0.1,
                 encoder_dims: PositiveInt = 384, group_size: PositiveInt = 32, num_group: PositiveInt = 128,
                 taps: Annotated[Listed[PositiveInt], MinLen(1)] = (4, 8, 12)) -> None:
        super().__init__()
        if max(taps) > depth or len(set(taps)) < len(taps):
            raise ConfigError(f"model.taps is {list(taps)}; it must name different blocks, 1 … {depth}")
        self.group_size, self.num_group = group_size, num_group
        self.num_categories, self.taps = num_categories, [block - 1 for block in taps]
        width = len(taps) * embed_dim
        self.encoder = PatchEncoder(encoder_dims)
        self.reduce_dim = nn.Linear(encoder_dims, embed_dim) if encoder_dims != embed_dim else nn.Identity()
        self.pos_embed = position_mlp(embed_dim)
        self.blocks = TransformerEncoder(embed_dim, depth, num_heads, drop_path_rate)
        self.norm = nn.LayerNorm(embed_dim)
        described = 2 * width
        if num_categories:
            self.label_conv_cls = nn.Sequential(
                nn.Conv1d(num_categories, 64, 1, bias=False), nn.BatchNorm1d(64), nn.LeakyReLU(0.2))
            described += 64
        self.propagation_0_cls = FeaturePropagation(width + 3, (4 * embed_dim, PROPAGATION_WIDTH))
        self.convs1_cls = nn.Conv1d(PROPAGATION_WIDTH + described, HEAD_WIDTHS[0], 1)
        self.bns1_cls = nn.BatchNorm1d(HEAD_WIDTHS[0])
        self.dropout = nn.Dropout(0.5)
        self.convs2_cls = nn.Conv1d(HEAD_WIDTHS[0], HEAD_WIDTHS[1], 1)
        self.bns2_cls = nn.BatchNorm1d(HEAD_WIDTHS[1])
        self.convs3_cls = nn.Conv1d(HEAD_WIDTHS[1], num_classes, 1)
        for part in (self.encoder, self.pos_embed, self.blocks):
            part.apply(init_truncated_normal)

    def forward(self, points, label=None, category=None, weight=None):
        """Label the points of clouds (B, N, 3).

        Args:
            label: (B, N) true classes, for the loss.
            category: (B) numbers of the objects' categories, where the model has categories.
            weight: (classes) of the classes in the loss.

        Returns a dict with ``log_prob`` (B, N, classes), log-softmax, and, where ``label`` is given, ``loss`` (negative
        log-likelihood) and ``acc`` in percent.
        """
        features, center = self.patch_features(points)
        described = [features.max(1, keepdim=True).values, features.mean(1, keepdim=True)]  # B 1 C
        if self.num_categories:
            one_hot = F.one_hot(category, self.num_categories).to(features.dtype)  # B categories
            conv, norm, activation = self.label_conv_cls
            described.append(activation(norm(pointwise(conv, one_hot))).unsqueeze(1))
        x = self.propagation_0_cls(points, center, features)  # B N 1024
        x = norm_relu(self.bns1_cls, pointwise_split(self.convs1_cls, x, torch.cat(described, -1)))
        x = norm_relu(self.bns2_cls, pointwise(self.convs2_cls, self.dropout(x)))
        log_prob = pointwise(self.convs3_cls, x).float().log_softmax(-1)  # B N classes
        if label is None:
            return {"log_prob": log_prob}
        loss = weighted_nll(log_prob.flatten(0, 1), label.flatten(), weight)
        accuracy = (log_prob.argmax(-1) == label).float().mean() * 100
        return {"log_prob": log_prob, "loss": loss, "acc": accuracy}

    def layer_of(self, name):
        """Return the number of the layer of parameter ``name``, and that of the last one."""
        return layer_of(name, len(self.blocks.blocks))

    def patch_features(self, points):
        """Return the joined features (B, G, C) of the patches and their centres (B, G, 3)."""
        neighborhood, center = group(points, self.num_group, self.group_size)
        _, tapped = self.blocks(self.reduce_dim(self.encoder(neighborhood)), self.pos_embed(center), self.taps)
        return torch.cat([self.norm(tapped[index]) for index in self.taps], -1), center


def weighted_nll(log_prob, label, weight):
    """Return the mean negative log-likelihood, weighted by class, of ``label`` (N,) under ``log_prob`` (N, classes).

    Divided by the mean over processes of the weights' sum, so that the mean over processes is that of all points.
    """
    if weight is None:
        return F.nll_loss(log_prob, label)
    return F.nll_loss(log_prob, label, weight, reduction="sum") / mean_all(weight[label].sum())
