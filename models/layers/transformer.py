"""The one Transformer block of the code base, and the encoder and decoder stacks built of it."""
import torch
import torch.nn.functional as F
from torch import nn

from utils.errors import ConfigError


class Attention(nn.Module):
    """Multi-head self-attention over (B, N, C)."""

    def __init__(self, width, num_heads, qkv_bias=False):
        super().__init__()
        if width % num_heads:
            raise ConfigError(f"tokens of width {width} cannot be shared out among {num_heads} heads: change embed_dim "
                              f"or num_heads")
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x, bias=None):
        """``bias``, if given, is added to the scores; its shape broadcasts to (B, H, N, N)."""
        q, k, v = self.queries_keys_values(x)
        if bias is not None:  # finite in float16 too, so that a token that sees nothing gets no NaN
            bias = bias.clamp_min(torch.finfo(q.dtype).min / 2).to(q.dtype)
        x = F.scaled_dot_product_attention(q, k, v, bias)
        return self.proj(x.transpose(1, 2).flatten(2))

    def queries_keys_values(self, x):
        """Return three tensors (B, H, N, C / H)."""
        batch, length, _ = x.shape
        return self.qkv(x).view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def of_first_token(self, x):
        """Return how much the first token attends to each token (B, N), averaged over heads; it adds up to 1."""
        q, k, _ = self.queries_keys_values(x)
        score = q[:, :, :1] @ k.transpose(-1, -2) / q.shape[-1] ** 0.5  # B H 1 N
        return score.softmax(-1).mean(1).squeeze(1)


class DropPath(nn.Module):
    """Drop a residual branch for a whole sample with probability ``rate`` (stochastic depth, Huang et al. 2016)."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        mask = torch.empty(x.shape[0], *[1] * (x.dim() - 1), device=x.device, dtype=x.dtype).bernoulli_(keep)
        return x * mask / keep


class Mlp(nn.Module):
    """The two-layer perceptron of a block."""

    def __init__(self, width, hidden):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm Transformer block, MLP ratio 4, no bias on query, key and value."""

    def __init__(self, width, num_heads, drop_path=0.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, num_heads)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x, bias=None):
        x = x + self.drop_path(self.attn(self.norm1(x), bias))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def build_blocks(width, depth, num_heads, drop_path_rate, first_rate=0.0):
    """Return ``depth`` blocks whose drop-path rate rises linearly from ``first_rate`` to ``drop_path_rate``."""
    rates = [first_rate + (drop_path_rate - first_rate) * i / max(depth - 1, 1) for i in range(depth)]
    return nn.ModuleList(Block(width, num_heads, rate) for rate in rates)


class TransformerEncoder(nn.Module):
    """A stack of blocks; the position embedding is added before every block."""

    def __init__(self, width, depth, num_heads, drop_path_rate, first_rate=0.0):
        super().__init__()
        self.blocks = build_blocks(width, depth, num_heads, drop_path_rate, first_rate)

    def forward(self, x, pos, taps=(), bias=None):
        """Return the last block's output (B, N, C) and, by index, the outputs of the blocks in ``taps``.

        ``bias``, if given, is added to the attention scores of every block; its shape broadcasts to (B, H, N, N).
        """
        tapped = {}
        for index, block in enumerate(self.blocks):
            x = block(x + pos, bias)
            if index in taps:
                tapped[index] = x
        return x, tapped

    def class_attention(self, x, pos):
        """Return how much the class token, which stands first, attends to each token (B, N) in the last block."""
        for block in self.blocks[:-1]:
            x = block(x + pos)
        last = self.blocks[-1]
        return last.attn.of_first_token(last.norm1(x + pos))


class TransformerDecoder(nn.Module):
    """The student's decoder: blocks over all tokens, then the norm of the tokens that are asked for."""

    def __init__(self, width, depth, num_heads, drop_path_rate):
        super().__init__()
        self.blocks = build_blocks(width, depth, num_heads, drop_path_rate)
        self.norm = nn.LayerNorm(width)

    def forward(self, x, pos, last):
        """Return the normed last ``last`` tokens (B, last, C)."""
        for block in self.blocks:
            x = block(x + pos)
        return self.norm(x[:, -last:])
