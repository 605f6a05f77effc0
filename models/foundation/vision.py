"""The families of image models, all from timm. A family is a class here; the first that matches a name is taken."""
import torch
from torch import nn

from models.foundation.base import Foundation, attend
from models.foundation.weights import create_pretrained
from utils.errors import ConfigError

CLIP_TOWERS = {"CLIP:ViT-B/16": "vit_base_patch16_clip_quickgelu_224.openai",
               "CLIP:ViT-B/32": "vit_base_patch32_clip_quickgelu_224.openai",
               "CLIP:ViT-L/14": "vit_large_patch14_clip_quickgelu_224.openai"}

PARTS = ("blocks.", "norm.", "norm_pre.", "fc_norm.")


def build_vision(name, pretrained, kwargs):
    """Return the Foundation of the image model ``name``; ``create_pretrained`` says what the arguments mean.

    ``name`` is one of timm's or, for CLIP, one of ``CLIP_TOWERS``.
    """
    if name.startswith("CLIP:") and name not in CLIP_TOWERS:
        raise ConfigError(f"model.visual_embed_type '{name}' is not one of {', '.join(CLIP_TOWERS)}")
    model = create_pretrained(CLIP_TOWERS.get(name, name), pretrained, kwargs, PARTS)
    family = next((family for family in FAMILIES if family.matches(model)), None)
    if family is None:
        raise ConfigError(f"model.visual_embed_type '{name}' is not a vision Transformer of blocks and a norm")
    return family(model)


class TimmBlocks(Foundation):
    """Any timm model of blocks of one width over tokens, and a norm; prompts are run through the blocks and dropped."""

    def __init__(self, model):
        norm = model.norm
        if isinstance(norm, nn.Identity) and hasattr(model, "fc_norm"):
            norm = model.fc_norm
        super().__init__(model.blocks, norm, model.num_features)

    @staticmethod
    def matches(model):
        return hasattr(model, "blocks") and hasattr(model, "norm")


class VisionTransformer(TimmBlocks):
    """ViT, the hybrid ViT, DeiT, DINOv2: blocks of attention with one product for query, key and value."""

    @staticmethod
    def matches(model):
        from timm.models.vision_transformer import Block

        return hasattr(model, "blocks") and all(type(block) is Block for block in model.blocks)

    def block(self, index, x, prompts=None):
        return super().block(index, x) if prompts is None else prompted_block(self[0][index], x, prompts)


class ClipTransformer(VisionTransformer):
    """CLIP's image tower: a norm before the first block."""

    def __init__(self, model):
        super().__init__(model)
        self.append(model.norm_pre)

    @staticmethod
    def matches(model):
        return VisionTransformer.matches(model) and not isinstance(model.norm_pre, nn.Identity)

    def start(self, x):
        return self[2](x)


class Beit(TimmBlocks):
    """BEiT, without its relative position bias: that is of image patches in rows and columns."""

    @staticmethod
    def matches(model):
        return type(model).__name__ == "Beit"

    def __init__(self, model):
        super().__init__(model)
        for block in self[0]:
            block.attn.relative_position_bias_table = None

    def block(self, index, x, prompts=None):
        block = self[0][index]
        attention, bias = block.attn, None
        if attention.q_bias is not None:
            bias = torch.cat([attention.q_bias, torch.zeros_like(attention.v_bias), attention.v_bias])
        prompts = None if prompts is None else block.norm1(prompts)
        update = attend(block.norm1(x), prompts, attention.qkv.weight, bias, attention.num_heads)
        x = x + block.drop_path1(scaled(block.gamma_1, attention.proj(update)))
        return x + block.drop_path2(scaled(block.gamma_2, block.mlp(block.norm2(x))))


class Mixer(TimmBlocks):
    """MLP-Mixer and ResMLP: layers that mix a fixed number of tokens."""

    @staticmethod
    def matches(model):
        return type(model).__name__ == "MlpMixer"

    def __init__(self, model):
        super().__init__(model)
        self.length = model.stem.num_patches

    def check(self, num_tokens, name):
        if num_tokens != self.length:
            raise ConfigError(f"'{name}' mixes {self.length} tokens, but model.num_group and num_prompt_token add up "
                              f"to {num_tokens}: change num_prompt_token by {self.length - num_tokens}")


FAMILIES = (ClipTransformer, VisionTransformer, Beit, Mixer, TimmBlocks)


def scaled(gamma, x):
    """Apply a layer scale that may be None."""
    return x if gamma is None else gamma * x


def prompted_block(block, x, prompts):
    """Run a block of timm's ViT on ``x`` (B, N, C) with ``prompts`` (B or 1, P, C) beside it; return (B, N, C).

    The result is that of the block on the concatenated sequence; neither attention output nor MLP is computed for the
    prompts.
    """
    attention = block.attn
    update = attend(block.norm1(x), block.norm1(prompts), attention.qkv.weight, attention.qkv.bias,
                    attention.num_heads, (attention.q_norm, attention.k_norm))
    x = x + block.drop_path1(block.ls1(attention.proj(attention.norm(update))))
    return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
