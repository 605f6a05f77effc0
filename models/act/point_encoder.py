"""The 3D Transformer that sees the visible patches, shared by stage II and its evaluation."""
import torch
from torch import nn

from models.interface import Loadable
from models.layers.patches import PatchEncoder, position_mlp
from models.layers.transformer import TransformerEncoder


class PointEncoder(Loadable):
    """Patches → tokens with a class token in front → Transformer → norm.

    Where the patch encoder is of another width, ``reduce_dim`` maps its tokens to that of the Transformer.
    """

    def __init__(self, *, embed_dim, encoder_dims, depth, num_heads, drop_path_rate):
        super().__init__()
        self.encoder = PatchEncoder(encoder_dims)
        self.reduce_dim = nn.Linear(encoder_dims, embed_dim) if encoder_dims != embed_dim else nn.Identity()
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.cls_pos = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.pos_embed = position_mlp(embed_dim)
        self.blocks = TransformerEncoder(embed_dim, depth, num_heads, drop_path_rate)
        self.norm = nn.LayerNorm(embed_dim)

    def layer_of(self, name):
        """Return the number of the layer of parameter ``name``, and that of the last one."""
        return layer_of(name, len(self.blocks.blocks))

    def tokens(self, neighborhood):
        """Return the patch tokens (B, G, C) of patches (B, G, K, 3)."""
        return self.reduce_dim(self.encoder(neighborhood))

    def encode(self, tokens, center, taps=()):
        """Return the normed class token and tokens (B, 1 + G, C), and the block outputs asked for by ``taps``."""
        x, tapped = self.blocks(*self.with_class_token(tokens, center), taps)
        return self.norm(x), tapped

    def with_class_token(self, tokens, center):
        """Return the class token in front of tokens (B, G, C), and the positions of all, both (B, 1 + G, C)."""
        batch = len(tokens)
        x = torch.cat([self.cls_token.expand(batch, -1, -1), tokens], 1)
        return x, torch.cat([self.cls_pos.expand(batch, -1, -1), self.pos_embed(center)], 1)

    def class_attention(self, neighborhood, center):
        """Return the attention (B, G) of the class token to each patch in the last block, averaged over heads."""
        return self.blocks.class_attention(*self.with_class_token(self.tokens(neighborhood), center))[:, 1:]

    def features(self, neighborhood, center):
        """Return the class token ‖ the maximum over the tokens (B, 2C), nothing masked."""
        return pool(self.encode(self.tokens(neighborhood), center)[0])


def layer_of(name, depth):
    """Return the layer of a student's parameter: 0 before the blocks, 1 … ``depth`` in them, ``depth`` + 1 behind."""
    if name.startswith("blocks."):
        return int(name.split(".")[2]) + 1, depth + 1
    before = name.startswith(("encoder.", "reduce_dim.", "cls_token", "cls_pos", "pos_embed."))
    return 0 if before else depth + 1, depth + 1


def pool(x):
    """Class token ‖ maximum over the other tokens: (B, 1 + G, C) → (B, 2C)."""
    return torch.cat([x[:, 0], x[:, 1:].max(1).values], -1)
