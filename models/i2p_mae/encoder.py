"""Tokens of several scales: grouping, merging, masks, and the encoder over them (Point-M2AE; I2P-MAE, section 3.1)."""
from typing import Annotated

import torch
from annotated_types import MinLen
from torch import nn

from extensions.ops import knn
from models.layers.patches import PatchEncoder, gather, group, position_mlp
from models.layers.pointwise import pointwise
from models.layers.transformer import TransformerEncoder
from utils.errors import ConfigError
from utils.key_types import Because, Listed, NonNegativeFloat, PositiveInt

OUTSIDE = -1e5  # added to the attention score of a token that must not be seen

# one number a scale, finest first
Scales = Annotated[Listed[PositiveInt], MinLen(1), Because("one for each scale, finest first")]
Radii = NonNegativeFloat | Annotated[Listed[NonNegativeFloat], Because("one for each scale, finest first")]


def group_scales(points, num_groups, group_sizes):
    """Cut clouds (B, N, 3) into patches, these into patches of patches, and so on.

    Args:
        points: (B, N, 3).
        num_groups: tokens of each scale, finest first.
        group_sizes: points of a patch of the finest scale, then tokens of the finer scale that one token is made of.

    Returns:
        neighborhood (B, G, K, 3), the finest patches, relative to their centres; centers, a list of (B, G, 3), one of
        each scale; and children, a list of (B, G, K), one of each scale but the finest: indices of the nearest
        centres of the next finer scale, nearest first.

    Raises DataError where a cloud has too few points.
    """
    neighborhood, center = group(points, num_groups[0], group_sizes[0])
    centers, children = [center], []
    for number, size in zip(num_groups[1:], group_sizes[1:], strict=True):
        # furthest point sampling of centres that stand in the order in which it picked them picks the first ones
        coarser = centers[-1][:, :number]
        children.append(knn(centers[-1], coarser, size)[1])
        centers.append(coarser)
    return neighborhood, centers, children


def check_scales(num_groups, group_sizes, depths, dims, num_heads):
    """Raise ConfigError unless the keys of an encoder's scales fit together."""
    for key, values in {"group_sizes": group_sizes, "encoder_depths": depths, "encoder_dims": dims}.items():
        if len(values) != len(num_groups):
            raise ConfigError(f"model.{key} is {list(values)}; it must list a whole number of at least 1 for each of "
                              f"the {len(num_groups)} scales of num_groups")
    for finer, coarser, size in zip(num_groups, num_groups[1:], group_sizes[1:], strict=False):
        if max(coarser, size) > finer:
            raise ConfigError(f"model.num_groups {list(num_groups)} and group_sizes {list(group_sizes)} do not fit: "
                              f"{finer} tokens cannot be merged into {coarser} of {size} each")
    wrong = [width for width in dims if width % num_heads]
    if wrong:
        raise ConfigError(f"model.encoder_dims {list(dims)} must be multiples of num_heads ({num_heads})")


def inherit_masks(mask, children, num_groups, first_visible=False):
    """Return the masks of all scales, finest first, from ``mask`` (B, G) bool of the coarsest, True where masked.

    A token is visible where a visible token of the next coarser scale is made of it, so a visible token is made of
    visible ones alone; how many there are differs from cloud to cloud (I2P-MAE, section 3.3).

    ``first_visible`` is what the published code does: where anything is masked, the first token of the first cloud is
    visible in every finer scale, because the indices of masked tokens are replaced by 0.
    """
    masks = [mask]
    for index, number in zip(reversed(children), reversed(num_groups[:-1]), strict=True):
        coarser = masks[0]
        used = (~coarser).unsqueeze(-1).expand_as(index).flatten(1)  # B GK
        uses = torch.zeros(len(index), number, device=index.device).scatter_add_(1, index.flatten(1), used.float())
        if first_visible:
            uses[0, 0] += coarser.any()
        masks.insert(0, uses == 0)
    return masks


def visible_first(mask):
    """Return where the visible tokens of every cloud are, in order, filled up with masked ones to the same length.

    ``mask`` (B, G) bool, True where masked → order (B, L), and valid (B, L) bool, False for what fills up; valid is
    None where nothing does, because every cloud has the same number.
    """
    count = (~mask).sum(1)
    least, most = torch.stack(count.aminmax()).tolist()  # the one wait for a GPU
    order = mask.int().argsort(dim=1, stable=True)[:, :most]
    return order, None if least == most else torch.arange(most, device=mask.device) < count.unsqueeze(1)


def attention_bias(center, radius, valid=None):
    """Return what is added to attention scores so that tokens see only those within ``radius`` of them.

    ``center`` (B, N, 3), ``radius`` in the same unit, 0 for no limit; tokens that are not ``valid`` (B, N) are seen by
    none. Returns (B, 1, N or 1, N), or None where all see all.
    """
    hidden = None if valid is None else ~valid[:, None, None]  # B 1 1 N
    if radius > 0:
        distance = torch.cdist(center, center, compute_mode="donot_use_mm_for_euclid_dist")  # exact at the limit
        far = (distance >= radius).unsqueeze(1)  # B 1 N N
        hidden = far if hidden is None else far | hidden
    return None if hidden is None else hidden * OUTSIDE


class TokenMerging(PatchEncoder):
    """Merge tokens (B, N, C) of the finer scale into those of the coarser: with ``children`` (B, G, K) → (B, G, C')."""

    def __init__(self, given, channels):
        super().__init__(channels, (given, given, given, channels))

    def forward(self, tokens, children):
        """The first layer is applied to each token once, not once for every token that it is merged into."""
        return self.after_first_layer(gather(pointwise(self.first_conv[0], tokens), children))


class HierarchicalEncoder(nn.Module):
    """Patches → tokens → blocks, then merged tokens → blocks, scale by scale.

    ``depths`` and ``dims`` are lists, finest scale first. ``local_radius``, a list or one number for all, limits
    attention to the tokens within it, in the unit of the clouds; 0: no limit. Drop-path rates rise linearly over the
    blocks of all scales.
    """

    def __init__(self, depths, dims, num_heads, drop_path_rate, local_radius):
        super().__init__()
        listed = isinstance(local_radius, (list, tuple))
        self.local_radius = list(local_radius) if listed else [local_radius] * len(dims)
        if len(self.local_radius) != len(dims):
            raise ConfigError(f"model.local_radius is {local_radius}; it must be one number of at least 0, or one for "
                              f"each of the {len(dims)} scales")
        merging = [TokenMerging(given, width) for given, width in zip(dims, dims[1:], strict=False)]
        self.token_embed = nn.ModuleList([PatchEncoder(dims[0]), *merging])
        self.encoder_pos_embeds = nn.ModuleList(position_mlp(width, hidden=width) for width in dims)
        self.encoder_blocks = build_stages(dims, depths, num_heads, drop_path_rate)

    def forward(self, neighborhood, centers, children, masks=None):
        """Return the tokens (B, G, C) of each scale, finest first; the arguments are what ``group_scales`` returns.

        With ``masks``, a list of (B, G) bool, the blocks see the visible tokens alone; what stands at masked places
        of the result is an embedding that no block has seen.
        """
        outputs = []
        for scale, center in enumerate(centers):
            given = (neighborhood,) if scale == 0 else (outputs[-1], children[scale - 1])
            tokens = self.token_embed[scale](*given)
            outputs.append(self.encode(scale, tokens, center, None if masks is None else masks[scale]))
        return outputs

    def encode(self, scale, tokens, center, mask):
        """Pass the visible ones of tokens (B, G, C) through the blocks of ``scale``."""
        blocks, position, radius = self.encoder_blocks[scale], self.encoder_pos_embeds[scale], self.local_radius[scale]
        if mask is None:
            return blocks(tokens, position(center), bias=attention_bias(center, radius))[0]
        order, valid = visible_first(mask)
        visible, center = gather(tokens, order), gather(center, order)  # B L .
        encoded, _ = blocks(visible, position(center), bias=attention_bias(center, radius, valid))
        if valid is not None:
            encoded = torch.where(valid.unsqueeze(-1), encoded, visible)
        return tokens.scatter(1, order.unsqueeze(-1).expand_as(encoded), encoded.to(tokens.dtype))


def build_stages(dims, depths, num_heads, drop_path_rate):
    """Return stacks of blocks, one a scale, whose drop-path rates rise linearly from 0 over all of them."""
    stages, before, steps = nn.ModuleList(), 0, max(sum(depths) - 1, 1)
    for width, depth in zip(dims, depths, strict=True):
        first, last = (drop_path_rate * block / steps for block in (before, before + depth - 1))
        stages.append(TransformerEncoder(width, depth, num_heads, last, first))
        before += depth
    return stages
