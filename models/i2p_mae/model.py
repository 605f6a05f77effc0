"""I2P-MAE: a masked autoencoder of point clouds that a frozen image model guides (CVPR 2023)."""
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from extensions.ops import chamfer
from models.build import MODELS
from models.i2p_mae.encoder import (
    HierarchicalEncoder,
    Radii,
    Scales,
    build_stages,
    check_scales,
    group_scales,
    inherit_masks,
)
from models.i2p_mae.image_model import ImageModelKeys, build_image_model
from models.i2p_mae.projection import VIEWS, Projection, read_map
from models.interface import Loadable
from models.layers.feature_propagation import ResidualFeaturePropagation
from models.layers.init import init_truncated_normal
from models.layers.patches import gather, position_mlp
from models.layers.pointwise import pointwise
from models.masking import MASKS, guided_mask, make_mask
from utils.distributed import mean_all
from utils.errors import ConfigError
from utils.key_types import Because, Fraction, Listed, NonNegativeInt, OneOf, PositiveInt, ProperFraction

Stages = Annotated[Listed[NonNegativeInt], Because("one for each decoded scale, coarsest first")]


class NormedEncoder(HierarchicalEncoder):
    """The encoder with a norm after the blocks of each scale, for the decoder."""

    def __init__(self, depths, dims, num_heads, drop_path_rate, local_radius):
        super().__init__(depths, dims, num_heads, drop_path_rate, local_radius)
        self.encoder_norms = nn.ModuleList(nn.LayerNorm(width) for width in dims)


@MODELS.register
class I2P_MAE(Loadable):
    """Reconstruct masked patches in 3D and, from visible ones, what an image model sees of them (I2P-MAE, section 3).

    The image model is frozen and no part of the state dict, the parameters or the modules.

    Keys:
        group_sizes: points a patch of the finest scale, then tokens that are merged into one.
        num_groups: tokens of each scale.
        encoder_depths: blocks of each scale.
        encoder_dims: width of each scale.
        local_radius: how far attention reaches in each scale, in the unit of the clouds; 0 for everywhere.
        decoder_depths: blocks of each decoded scale.
        decoder_dims: width of each decoded scale.
        decoder_up_blocks: layers after each propagation to a finer scale.
        drop_path_rate: of the last block; it rises linearly from 0 over all scales.
        num_heads: heads of attention.
        mask_ratio: of the coarsest tokens, masked.
        mask_type: ``guided`` by the image model's attention, or without it ``rand`` or ``block``.
        loss_2d: visible tokens predict image features as well; without it the image model only guides the mask, and
            where that is not guided either it is not needed and not built.
        first_token_visible: brings back what the published code does to masks; see ``inherit_masks``.
        clip_config: the image model.
    """

    unused_weights = (r"clip_model\.",)
    train_transforms = ("ScaleAndTranslate",)

    def __init__(self, *, mask_ratio: ProperFraction = 0.8,
                 mask_type: Annotated[str, OneOf({"guided": guided_mask, **MASKS})] = "guided", loss_2d: bool = True,
                 group_sizes: Scales = (16, 8, 8), num_groups: Scales = (512, 256, 64),
                 encoder_depths: Scales = (5, 5, 5), encoder_dims: Scales = (96, 192, 384), local_radius: Radii = 0.0,
                 decoder_depths: Stages = (1, 1), decoder_dims: Stages = (384, 192),
                 decoder_up_blocks: Stages = (1, 1), drop_path_rate: Fraction = 0.1, num_heads: PositiveInt = 6,
                 first_token_visible: bool = False,
                 clip_config: ImageModelKeys = ImageModelKeys()) -> None:  # noqa: B008 - immutable
        super().__init__()
        check_scales(num_groups, group_sizes, encoder_depths, encoder_dims, num_heads)
        check_decoder(encoder_dims, decoder_depths, decoder_dims, decoder_up_blocks)
        self.feat_dim = clip_config.feat_dim
        self.mask_ratio, self.mask_type, self.loss_2d = mask_ratio, mask_type, loss_2d
        self.first_token_visible = first_token_visible
        self.num_groups, self.group_sizes = list(num_groups), list(group_sizes)
        self.target = len(num_groups) - len(decoder_dims)  # the scale whose patches are reconstructed

        self.h_encoder = NormedEncoder(encoder_depths, encoder_dims, num_heads, drop_path_rate, local_radius)
        self.mask_token = nn.Parameter(torch.empty(1, decoder_dims[0]))
        self.h_decoder = build_stages(decoder_dims, decoder_depths, num_heads, drop_path_rate)
        self.decoder_pos_embeds = nn.ModuleList(position_mlp(width, hidden=width) for width in decoder_dims)
        self.token_prop = nn.ModuleList(
            ResidualFeaturePropagation(coarse, width, blocks)
            for coarse, width, blocks in zip(decoder_dims, decoder_dims[1:], decoder_up_blocks, strict=False))
        width, size = decoder_dims[-1], group_sizes[self.target]
        self.decoder_norm = nn.LayerNorm(width)
        self.rec_head_3d = nn.Conv1d(width, 3 * size, 1)
        self.rec_head_2d = nn.Conv1d(width, len(VIEWS) * self.feat_dim * size, 1)
        self.apply(init_truncated_normal)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        # the decoder uses no scale finer than the reconstructed one
        self.unused_parameters = (*(f"h_encoder.encoder_norms.{scale}." for scale in range(self.target)),
                                  *(() if loss_2d else ("rec_head_2d.",)))
        needed = loss_2d or mask_type == "guided"
        # set past nn.Module, which would register it: it is not saved, not trained and always in evaluation mode
        object.__setattr__(self, "_image_model", build_image_model(clip_config) if needed else None)

    def _apply(self, fn, recurse=True):
        """Take the image model along to another device or type."""
        if self._image_model is not None:
            self._image_model._apply(fn)
        return super()._apply(fn, recurse)

    def forward(self, points, mask=None):
        """Reconstruct what is masked of clouds (B, N, 3).

        ``mask`` (B, G) bool of the coarsest tokens, True where masked, replaces the one that is drawn.

        Returns a dict: ``loss``, the sum of ``loss_3d`` and ``loss_2d``; these two; ``mask`` (B, G); ``saliency``
        (B, G), where there is an image model; ``reconstruction`` (M, K, 3) and ``original``, likewise, of the masked
        patches of the reconstructed scale, relative to their centres.
        """
        neighborhood, centers, children = group_scales(points, self.num_groups, self.group_sizes)
        maps, projection, out = None, None, {}
        if self._image_model is not None:
            projection = Projection(points)
            maps, attention = self.image_features(projection)
            out["saliency"] = read_saliency(projection, attention, centers[-1])
        if mask is None:
            mask = self.draw_mask(centers[-1], out.get("saliency"))
        masks = inherit_masks(mask, children, self.num_groups, self.first_token_visible)
        tokens = self.h_encoder(neighborhood, centers, children, masks)
        decoded = self.decode(tokens, centers, masks)  # B G C of the reconstructed scale

        masked, finer, center = masks[self.target], centers[self.target - 1], centers[self.target]
        child = children[self.target - 1]  # B G K
        out["original"] = (gather(finer, child) - center.unsqueeze(2))[masked]  # M K 3
        out["reconstruction"] = pointwise(self.rec_head_3d, decoded[masked]).float().unflatten(-1, (-1, 3))
        out["loss_3d"] = chamfer_l2(out["reconstruction"], out["original"])
        out["loss"] = out["loss_3d"]
        if self.loss_2d:
            target = self.image_targets(maps, projection.pixels(finer), child, masked)
            out["loss_2d"] = mean_square(pointwise(self.rec_head_2d, decoded[~masked]).float(), target)
            out["loss"] = out["loss"] + out["loss_2d"]
        return out | {"mask": mask}

    @torch.no_grad()
    def image_features(self, projection):
        """Return the image model's features (3B, C, h, w) and class attention (3B, h, w) of the depth images."""
        return self._image_model(projection.depth_images())

    def draw_mask(self, center, saliency):
        """Return a mask (B, G) of ``int(mask_ratio * G)`` of the coarsest tokens."""
        if self.mask_type != "guided":
            return make_mask(self.mask_type, center, self.mask_ratio)
        return guided_mask(saliency, int(self.mask_ratio * center.shape[1]))

    def decode(self, tokens, centers, masks):
        """Return the normed tokens (B, G, C) of the reconstructed scale, masked ones included."""
        x = None
        for stage, (blocks, position) in enumerate(zip(self.h_decoder, self.decoder_pos_embeds, strict=True)):
            scale = len(centers) - 1 - stage
            hidden = masks[scale].unsqueeze(-1)
            seen = self.h_encoder.encoder_norms[scale](tokens[scale])
            if stage == 0:
                x = torch.where(hidden, self.mask_token.to(seen.dtype), seen)
            else:
                x = self.token_prop[stage - 1](centers[scale], centers[scale + 1], seen.masked_fill(hidden, 0), x)
            x, _ = blocks(x, position(centers[scale]))
        return self.decoder_norm(x)

    @torch.no_grad()
    def image_targets(self, maps, pixels, child, masked):
        """Return the image features (V, K3C) of the visible patches' points in all views, point by point.

        ``maps`` (3B, C, h, w); ``pixels`` (3B, M, 2) of the tokens that ``child`` (B, G, K) points to.
        """
        features = read_map(maps, pixels)  # 3B M C
        features = torch.cat(features.chunk(len(VIEWS)), -1)  # B M 3C
        cloud, _ = (~masked).nonzero(as_tuple=True)  # V
        return features[cloud.unsqueeze(1), child[~masked]].flatten(1)  # V K3C

    @property
    def least_points(self):
        """The number of points that a cloud must have."""
        return max(self.num_groups[0], self.group_sizes[0])

    def forward_features(self, points):
        """Return the features (B, C) of whole clouds (B, N, 3): the maximum over the coarsest tokens, for an SVM.

        All coarsest tokens are visible. As in pre-training, finer ones that none of them is made of are not.
        """
        neighborhood, centers, children = group_scales(points, self.num_groups, self.group_sizes)
        nothing = torch.zeros(centers[-1].shape[:2], dtype=torch.bool, device=points.device)
        masks = inherit_masks(nothing, children, self.num_groups)
        tokens = self.h_encoder(neighborhood, centers, children, masks)[-1]
        return self.h_encoder.encoder_norms[-1](tokens).max(1).values


def check_decoder(encoder_dims, depths, dims, up_blocks):
    """Raise ConfigError unless the decoder's keys fit the encoder's scales."""
    if not 1 <= len(dims) < len(encoder_dims) or list(dims) != list(encoder_dims)[::-1][:len(dims)]:
        raise ConfigError(f"model.decoder_dims is {list(dims)}; it must be the last of encoder_dims "
                          f"({list(encoder_dims)}) in reverse, at least one and not all")
    if len(depths) != len(dims) or len(up_blocks) < len(dims) - 1:
        raise ConfigError(f"model.decoder_depths {list(depths)} and decoder_up_blocks {list(up_blocks)} must have a "
                          f"number for each of the {len(dims)} decoder_dims")


def read_saliency(projection, attention, center):
    """Return the attention (3B, h, w) at centres (B, G, 3), averaged over views: (B, G) (I2P-MAE, section 3.3)."""
    values = read_map(attention.unsqueeze(1), projection.pixels(center))  # 3B G 1
    return values.view(len(VIEWS), *center.shape[:2]).mean(0)


def chamfer_l2(prediction, target):
    """Return the mean squared distance of the points of patches (M, K, 3) to the nearest, both ways added; else 0."""
    return sum(distance.sum() / mean_count(distance) for distance in chamfer(prediction, target)[:2])


def mean_square(prediction, target):
    """Return the mean squared error of tokens (V, C)."""
    return F.mse_loss(prediction, target, reduction="sum") / mean_count(target)


def mean_count(values):
    """Return how many ``values`` a process has on average, at least 1.

    Processes see as many clouds, but not as many patches; divided by this, the mean over processes is that of all.
    """
    return mean_all(values.new_tensor(values.numel(), dtype=torch.float32)).clamp_min(1)
