"""What every foundation model is to the autoencoder around it: a stack of blocks over tokens."""
import torch
import torch.nn.functional as F
from torch import nn

from utils.errors import ConfigError, one_line


class Foundation(nn.Sequential):
    """The blocks of a pretrained model and its final norm, without its embedding and head.

    A family of models is a subclass; it says which models belong to it (``matches``) and, where they are special, how
    tokens enter (``start``), how a block runs (``block``), and what settings cannot work (``check``).

    ``width`` is that of the tokens, ``depth`` the number of blocks.
    """

    def __init__(self, blocks, norm, width, depth=None):
        super().__init__(blocks, norm)
        self.width, self.depth = width, len(blocks) if depth is None else depth

    def check(self, num_tokens, name):
        """Raise ConfigError where ``num_tokens`` tokens and prompts together cannot work; ``name`` is the model's."""
        tokens, training = torch.zeros(1, num_tokens, self.width, device=next(self.parameters()).device), self.training
        try:
            with torch.no_grad():
                self.eval().block(0, tokens)
        except Exception as error:  # whatever a block that wants something else than tokens trips over
            raise ConfigError(f"'{name}' cannot be a teacher: its blocks do not run on tokens alone "
                              f"({one_line(error)[:100]})") from error
        finally:
            self.train(training)

    def start(self, x):
        """Return the tokens (B, N, C) as the first block wants them."""
        return x

    def block(self, index, x, prompts=None):
        """Run block ``index`` on ``x`` (B, N, C), with ``prompts`` (B or 1, P, C) in front of it; return (B, N, C)."""
        block = self[0][index]
        if prompts is None:
            return block(x)
        return block(torch.cat([prompts.expand(len(x), -1, -1), x], 1))[:, prompts.shape[1]:]

    def end(self, x):
        """Return the normed tokens."""
        return self[1](x)


class Prompts(nn.Module):
    """Dropout of the prompts of one block: on the tokens, not on their positions."""

    def __init__(self, rate=0.1):
        super().__init__()
        self.dropout = nn.Dropout(rate)

    def forward(self, tokens, pos, batch):
        """``tokens`` and ``pos`` (1, P, C) → (B, P, C) in training, where each cloud drops its own; else (1, P, C)."""
        if self.training:
            tokens = self.dropout(tokens.expand(batch, -1, -1))
        return tokens + pos


def attend(x, prompts, weight, bias, heads, norms=None, dropout=0.0):
    """Attend from ``x`` (B, N, C) to ``[prompts, x]``; return (B, N, C), before the output projection.

    What a block makes of prompts is not wanted, so they take part as keys and values only: no query is computed for
    them. ``weight`` (3 C, C) and ``bias`` (3 C) or None make queries, keys and values; ``norms``, if given, are those
    of queries and keys. ``prompts`` is (B or 1, P, C) or None.
    """
    width = x.shape[-1]
    query, own = F.linear(x, weight, bias).split([width, 2 * width], dim=-1)
    if prompts is not None:
        other = F.linear(prompts, weight[width:], None if bias is None else bias[width:])  # B or 1, P 2C
        own = torch.cat([other.expand(x.shape[0], -1, -1), own], dim=1)  # B P+N 2C
    k, v = own.unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)  # B H P+N C/H
    q = query.unflatten(-1, (heads, -1)).transpose(1, 2)  # B H N C/H
    if norms is not None:
        q, k = norms[0](q), norms[1](k)
    x = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    return x.transpose(1, 2).flatten(2)
