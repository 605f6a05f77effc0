"""Stage I of ACT: a frozen foundation Transformer becomes the middle of a discrete 3D autoencoder."""
import pathlib
import re
from typing import Any, Literal

import torch
from torch import nn

from models.act.dvae import DiscreteVAE
from models.build import MODELS
from models.foundation import Prompts, build_language, build_vision
from models.layers.patches import position_mlp
from utils.errors import ConfigError
from utils.key_types import NonNegativeInt, PositiveInt


@MODELS.register
class ACTPromptedDiscreteVAEwithVIT(DiscreteVAE):
    """A DiscreteVAE whose sampled tokens pass a prompt-tuned vision model (ACT, section 4.1).

    Keys beside those of DiscreteVAE:
        visual_embed_type: the model: a name of timm's, ``CLIP:ViT-B/16``, or ``none``.
        visual_embed_dim: its width.
        visual_embed_pos: where it stands; ``after_dgcnn1`` is between the codebook and ``dgcnn_2``.
        visual_embed_pretrained: ``true``, ``false``, ``auto`` or a file; see ``foundation.weights``.
        visual_embed_kwargs: passed to the builder of the model: timm's ``create_model``.
        freeze_visual_embed: its blocks are not trained and stay in evaluation mode.
        num_prompt_token: prompts a block.
        use_deep_prompt: own prompts for every block, not the first alone.
    """

    build_foundation = staticmethod(build_vision)
    position_once = False  # whether position is added before the first block alone where prompts are not deep

    def __init__(self, *, visual_embed_type: str | None, visual_embed_dim: PositiveInt,
                 visual_embed_pos: Literal["after_dgcnn1"] = "after_dgcnn1", visual_embed_pretrained: bool | str = True,
                 visual_embed_kwargs: dict[str, Any] | None = None, freeze_visual_embed: bool = True,
                 num_prompt_token: NonNegativeInt = 64, use_deep_prompt: bool = True, tokens_dims: PositiveInt,
                 **dvae: Any) -> None:
        super().__init__(tokens_dims=tokens_dims, **dvae)
        self.num_prompt_token, self.use_deep_prompt = num_prompt_token, use_deep_prompt
        self.frozen, self.visual_embed = freeze_visual_embed, None
        if str(visual_embed_type).lower() == "none":
            return
        foundation = self.build_foundation(visual_embed_type, visual_embed_pretrained, visual_embed_kwargs or {})
        if foundation.width != visual_embed_dim:
            raise ConfigError(f"model.visual_embed_dim is {visual_embed_dim}, but '{visual_embed_type}' is "
                              f"{foundation.width} wide")
        foundation.check(self.num_group + num_prompt_token, visual_embed_type)
        self.visual_embed = foundation.requires_grad_(not freeze_visual_embed)
        self.proj_pre = nn.Linear(tokens_dims, foundation.width)
        self.visual_pos_embed = position_mlp(foundation.width)
        self.proj_post = nn.Linear(foundation.width, tokens_dims)
        if num_prompt_token:
            self.add_prompts(foundation.depth, foundation.width)

    def add_prompts(self, depth, width):
        """Make the prompts of the first block and, where they are deep, of every later one."""
        def parameter(blocks):
            return nn.Parameter(nn.init.trunc_normal_(torch.empty(blocks, self.num_prompt_token, width), std=0.02))

        self.visual_prompt_token, self.visual_prompt_pos = parameter(1), parameter(1)
        if self.use_deep_prompt:
            self.deep_prompt_tokens, self.deep_prompt_pos = parameter(depth - 1), parameter(depth - 1)
        self.prompts = Prompts()

    def train(self, mode=True):
        """Switch the mode; a frozen foundation model stays in evaluation mode."""
        super().train(mode)
        if self.frozen and self.visual_embed is not None:
            self.visual_embed.eval()
        return self

    def transform(self, tokens, center):
        """Pass tokens (B, G, C) with the position of their centres through the blocks."""
        if self.visual_embed is None:
            return tokens
        return self.proj_post(self.visual_embed.end(self.hidden(tokens, center, self.visual_embed.depth - 1)))

    def hidden(self, tokens, center, layer):
        """Return the output (B, G, D) of block ``layer``, from 0, for tokens (B, G, C) of the codebook."""
        x, pos = self.visual_embed.start(self.proj_pre(tokens)), self.visual_pos_embed(center)  # B G D
        if not self.num_prompt_token:
            return self.run_blocks(x, pos, layer)
        return self.deep(x, pos, layer) if self.use_deep_prompt else self.shallow(x, pos, layer)

    def target_width(self, after_dgcnn2=True, layer=None):
        """Return the number of channels of ``teacher_features``; ConfigError where there is no such block."""
        if layer is None or self.visual_embed is None:
            return super().target_width(after_dgcnn2, layer)
        if layer >= self.visual_embed.depth:
            raise ConfigError(f"model.dvae_config.teacher_layer is {layer}, but the foundation Transformer's blocks "
                              f"are 0 … {self.visual_embed.depth - 1}")
        return self.visual_embed.width

    def run_blocks(self, x, pos, layer):
        """Run the blocks up to ``layer`` on ``x``, position ``pos`` (B, N, D) added before each, or the first alone."""
        for index in range(layer + 1):
            x = self.visual_embed.block(index, x if self.position_once and index else x + pos)
        return x

    def deep(self, x, pos, layer):
        """Every block has prompts of its own; what it makes of them is dropped."""
        tokens = torch.cat([self.visual_prompt_token, self.deep_prompt_tokens])  # depth P D
        positions = torch.cat([self.visual_prompt_pos, self.deep_prompt_pos])
        for index in range(layer + 1):
            prompts = self.prompts(tokens[index:index + 1], positions[index:index + 1], len(x))  # B or 1, P D
            x = self.visual_embed.block(index, x + pos, prompts)
        return x

    def shallow(self, x, pos, layer):
        """The first block's prompts run through all blocks; their positions stay."""
        batch, number = len(x), self.num_prompt_token
        prompts = self.prompts(self.visual_prompt_token, torch.zeros_like(self.visual_prompt_pos), batch)
        x = torch.cat([prompts.expand(batch, -1, -1), x], 1)  # B P+G D
        pos = torch.cat([self.visual_prompt_pos.expand(batch, -1, -1), pos], 1)
        return self.run_blocks(x, pos, layer)[:, number:]


@MODELS.register
class ACTPromptedDiscreteVAEwithBERT(ACTPromptedDiscreteVAEwithVIT):
    """The same with a language model.

    Position is added before every layer where prompts are deep, and otherwise, as published, before the first alone.

    Keys beside those of DiscreteVAE:
        visual_embed_type: the model: a name on the Hugging Face hub, a local folder, or ``none``.
        visual_embed_kwargs: for random weights, arguments of ``BertConfig``.
    """

    build_foundation = staticmethod(build_language)
    position_once = True

    def upgrade_weights(self, weights):
        """Files of the first version lack ``layer.`` in the names of BERT's weights."""
        return {re.sub(r"^visual_embed\.0\.(?=\d)", "visual_embed.0.layer.", key): value
                for key, value in weights.items()}


def without_weights(section):
    """Return the keys that build the foundation Transformer of a ``model`` section without its pretrained weights.

    A folder that was named for the weights alone still says what the model is.
    """
    weights = section.get("visual_embed_pretrained")
    folder = isinstance(weights, str) and pathlib.Path(weights).is_dir()
    return {"visual_embed_pretrained": False, **({"visual_embed_type": weights} if folder else {})}
