"""Image models that look at pictures of clouds: a frozen Transformer of timm's with its patch embedding."""
from typing import Any

import torch.nn.functional as F
from torch import nn

from models.foundation.vision import CLIP_TOWERS, VisionTransformer
from models.foundation.weights import Keys, create_pretrained
from models.i2p_mae.projection import SIZE
from utils.errors import ConfigError
from utils.key_types import PositiveInt, Section

KEYS = Keys(*(f"model.clip_config.{key}" for key in ("visual_encoder", "pretrained", "kwargs")))
PARTS = ("patch_embed.", "cls_token", "reg_token", "dist_token", "pos_embed", "norm_pre.", "blocks.", "norm.",
         "fc_norm.")
CLIP_WIDTHS = {"CLIP:ViT-B/16": 512, "CLIP:ViT-B/32": 512, "CLIP:ViT-L/14": 768}  # of the space shared with text


class ImageModelKeys(Section):
    """``model.clip_config``: the image model.

    Keys:
        visual_encoder: ``ViT-B/16``, ``ViT-B/32`` or ``ViT-L/14`` for CLIP's (``CLIP:`` may stand before it), or the
            name of a ViT of timm's.
        feat_dim: width of its features.
        pretrained: ``true``, ``false``, ``auto`` or a file; see ``create_pretrained``.
        kwargs: further arguments of timm's ``create_model``.
    """

    visual_encoder: str = "ViT-B/16"
    feat_dim: PositiveInt = 512
    pretrained: bool | str = True
    kwargs: dict[str, Any] | None = None


class ImageModel(nn.Module):
    """A vision Transformer that gives the feature of each image patch, and how much the class token attends to it.

    ``width`` is that of the features: of CLIP those projected into the space shared with text, of others the normed
    tokens.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model
        head = model.head
        self.width = head.out_features if isinstance(head, nn.Linear) else model.num_features

    def forward(self, images):
        """Normalised images (B, 3, 224, 224) → features (B, C, h, w), and class attention (B, h, w).

        The attention is that of the last block, averaged over heads (I2P-MAE, section 3.3); with that to the class
        token itself, which is left out, it adds up to 1.
        """
        model = self.model
        x = model.norm_pre(model._pos_embed(model.patch_embed(images)))  # B 1+hw D
        for block in model.blocks[:-1]:
            x = block(x)
        last, first = model.blocks[-1], model.num_prefix_tokens
        attention = class_attention(last, x)[:, first:]  # B hw
        x = model.head(model.fc_norm(model.norm(last(x)[:, first:])))  # B hw C
        grid = model.patch_embed.grid_size
        return x.transpose(1, 2).unflatten(2, grid), attention.unflatten(1, grid)


def class_attention(block, x):
    """Return how much the first of tokens (B, N, C) attends to each in a timm block (B, N), averaged over heads."""
    attention, x = block.attn, block.norm1(x)
    weights = attention.qkv.weight.chunk(3)
    biases = (None,) * 3 if attention.qkv.bias is None else attention.qkv.bias.chunk(3)
    q, k = (F.linear(part, weight, bias).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            for part, weight, bias in zip((x[:, :1], x), weights, biases, strict=False))  # B H 1 D and B H N D
    q, k = attention.q_norm(q), attention.k_norm(k)
    score = (q @ k.transpose(-1, -2)).float() * attention.scale  # B H 1 N
    return score.softmax(-1).mean(1).squeeze(1)


def build_image_model(keys: ImageModelKeys) -> ImageModel:
    """Return the frozen ImageModel that ``model.clip_config`` describes, in evaluation mode.

    Raises ConfigError for a model that is unknown, has no class token or no such width.
    """
    kwargs = keys.kwargs or {}
    if "img_size" in kwargs:
        raise ConfigError(f"{KEYS.kwargs} is {kwargs!r}; it must hold arguments of timm's create_model, but img_size, "
                          f"because depth images have {SIZE} pixels a side")
    clip = f"CLIP:{keys.visual_encoder.removeprefix('CLIP:')}"
    arguments = {"img_size": SIZE, **kwargs}
    parts = PARTS
    if clip in CLIP_TOWERS:
        arguments.setdefault("num_classes", CLIP_WIDTHS[clip])
        parts = (*PARTS, "head.")
    model = create_pretrained(CLIP_TOWERS.get(clip, keys.visual_encoder), keys.pretrained, arguments, parts, KEYS)
    if not VisionTransformer.matches(model) or getattr(model, "cls_token", None) is None:
        raise ConfigError(f"{KEYS.name} '{keys.visual_encoder}' is not a vision Transformer of plain blocks "
                          f"with a class token")
    image_model = ImageModel(model)
    if image_model.width != keys.feat_dim:
        raise ConfigError(f"model.clip_config.feat_dim is {keys.feat_dim}, but the features of "
                          f"'{keys.visual_encoder}' are {image_model.width} wide")
    return image_model.requires_grad_(False).eval()
