"""Stage I of ACT: a frozen foundation Transformer becomes the middle of a discrete 3D autoencoder."""
import torch
from torch import nn

from models.build import MODELS
from models.dvae import DiscreteVAE
from models.foundation import Prompts, build_vit, prompted_block
from models.layers import position_mlp
from utils.errors import ConfigError


@MODELS.register
class ACTPromptedDiscreteVAEwithVIT(DiscreteVAE):
    """A DiscreteVAE whose sampled tokens pass a prompt-tuned vision Transformer (ACT, section 4.1).

    Keys beside those of DiscreteVAE:
        visual_embed_type: timm's name of the Transformer; visual_embed_dim: its width.
        visual_embed_pos: where it stands; ``after_dgcnn1`` (between codebook and ``dgcnn_2``).
        visual_embed_pretrained: ``true``, ``false``, ``auto`` or a file; see ``foundation.build_vit``.
        visual_embed_kwargs: passed to timm's ``create_model``.
        freeze_visual_embed: its blocks are not trained and stay in evaluation mode.
        num_prompt_token: prompts a block; use_deep_prompt: own prompts for every block, not the first alone.
    """

    def __init__(self, *, visual_embed_type, visual_embed_dim, visual_embed_pos="after_dgcnn1",
                 visual_embed_pretrained=True, visual_embed_kwargs=None, freeze_visual_embed=True,
                 num_prompt_token=64, use_deep_prompt=True, tokens_dims, **dvae):
        super().__init__(tokens_dims=tokens_dims, **dvae)
        if visual_embed_pos != "after_dgcnn1":
            raise ConfigError(f"model.visual_embed_pos '{visual_embed_pos}' is not known; give 'after_dgcnn1'")
        blocks, norm = build_vit(visual_embed_type, visual_embed_pretrained, visual_embed_kwargs or {})
        width = norm.weight.shape[0]
        if width != visual_embed_dim:
            raise ConfigError(f"model.visual_embed_dim is {visual_embed_dim}, but '{visual_embed_type}' is {width} "
                              f"wide")
        self.frozen = freeze_visual_embed
        self.num_prompt_token, self.use_deep_prompt = num_prompt_token, use_deep_prompt
        self.visual_embed = nn.Sequential(blocks, norm).requires_grad_(not freeze_visual_embed)
        self.proj_pre = nn.Linear(tokens_dims, width)
        self.visual_pos_embed = position_mlp(width)
        self.proj_post = nn.Linear(width, tokens_dims)
        if num_prompt_token:
            self.add_prompts(len(blocks), width)

    def add_prompts(self, depth, width):
        """Make the prompts of the first block and, where they are deep, of every later one."""
        def parameter(blocks):
            return nn.Parameter(nn.init.trunc_normal_(torch.empty(blocks, self.num_prompt_token, width), std=0.02))

        self.visual_prompt_token, self.visual_prompt_pos = parameter(1), parameter(1)
        if self.use_deep_prompt:
            self.deep_prompt_tokens, self.deep_prompt_pos = parameter(depth - 1), parameter(depth - 1)
        self.prompts = Prompts()

    def train(self, mode=True):
        """Switch the mode; a frozen Transformer stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.visual_embed.eval()
        return self

    def transform(self, tokens, center):
        """Pass tokens (B, G, C) through the Transformer, their centres' position added before every block."""
        blocks, norm = self.visual_embed
        x, pos = self.proj_pre(tokens), self.visual_pos_embed(center)  # B G D
        if not self.num_prompt_token:
            for block in blocks:
                x = block(x + pos)
        elif self.use_deep_prompt:
            x = self.deep(blocks, x, pos)
        else:
            x = self.shallow(blocks, x, pos)
        return self.proj_post(norm(x))

    def deep(self, blocks, x, pos):
        """Every block has prompts of its own; what it makes of them is dropped."""
        tokens = torch.cat([self.visual_prompt_token, self.deep_prompt_tokens])  # depth P D
        positions = torch.cat([self.visual_prompt_pos, self.deep_prompt_pos])
        for index, block in enumerate(blocks):
            prompts = self.prompts(tokens[index:index + 1], positions[index:index + 1], len(x))  # B or 1, P D
            x = prompted_block(block, x + pos, prompts)
        return x

    def shallow(self, blocks, x, pos):
        """The first block's prompts run through all blocks; their positions stay."""
        batch, number = len(x), self.num_prompt_token
        prompts = self.prompts(self.visual_prompt_token, torch.zeros_like(self.visual_prompt_pos), batch)
        x = torch.cat([prompts.expand(batch, -1, -1), x], 1)  # B P+G D
        pos = torch.cat([self.visual_prompt_pos.expand(batch, -1, -1), pos], 1)
        for block in blocks:
            x = block(x + pos)
        return x[:, number:]
