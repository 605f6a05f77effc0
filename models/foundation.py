"""Foundation Transformers: where their weights come from, and how they run between prompts."""
import threading
import urllib.request
import warnings

import torch
import torch.nn.functional as F
from torch import nn

from utils.checkpoint import read_weights
from utils.errors import CheckpointError, ConfigError

PROBE_SECONDS = 8


def build_vit(name, pretrained, kwargs):
    """Return ``(blocks, norm)`` of the timm vision Transformer ``name``.

    Args:
        name: a timm model name.
        pretrained: ``True`` downloads the weights through timm; ``False`` leaves them random; ``auto`` downloads
            where it can and otherwise warns and leaves them random; any other text is the path of a ``.safetensors``
            or ``.pth`` file, which must hold every weight of the blocks and the norm.
        kwargs: further arguments of timm's ``create_model``.

    Raises ConfigError for an unknown name or arguments, or where the weights cannot be downloaded; CheckpointError
    for a file that is damaged or belongs to another model.
    """
    import timm

    if not timm.is_model(name):
        raise ConfigError(f"model.visual_embed_type '{name}' is not a model of timm {timm.__version__}")
    if pretrained in (True, "auto"):
        vit = _download(timm, name, kwargs, required=pretrained is True)
    else:
        vit = _create(timm, name, kwargs)
    if not hasattr(vit, "blocks") or not hasattr(vit, "norm"):
        raise ConfigError(f"model.visual_embed_type '{name}' is not a vision Transformer of blocks and a norm")
    if pretrained not in (True, False, "auto"):
        _load_file(vit, pretrained)
    return vit.blocks, vit.norm


def _create(timm, name, kwargs, pretrained=False):
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **kwargs)
    except (TypeError, AssertionError) as error:
        raise ConfigError(f"timm cannot build '{name}' with model.visual_embed_kwargs {dict(kwargs)}: "
                          f"{error}") from error


def _download(timm, name, kwargs, required):
    """Return the pretrained model from timm's cache or the model hub, or say in one line why it can't be had."""
    reason = "the model hub cannot be reached"
    if _cached(timm, name) or _hub_answers():
        try:
            return _create(timm, name, kwargs, pretrained=True)
        except (OSError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
    if required:
        raise ConfigError(f"the pretrained weights of '{name}' could not be downloaded ({reason}). Set "
                          f"model.visual_embed_pretrained to a .safetensors or .pth file of them, or to false")
    warnings.warn(f"no pretrained weights for '{name}' ({reason}); going on with random weights", stacklevel=2)
    return _create(timm, name, kwargs)


def _cached(timm, name):
    from huggingface_hub import try_to_load_from_cache

    repository = timm.get_pretrained_cfg(name).hf_hub_id
    return bool(repository) and isinstance(try_to_load_from_cache(repository, "model.safetensors"), str)


def _hub_answers():
    """Whether the model hub answers within a few seconds; name look-ups can hang, so it is asked in a thread."""
    from huggingface_hub.constants import ENDPOINT

    answers = []

    def ask():
        try:
            request = urllib.request.Request(ENDPOINT, method="HEAD")
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
                answers.append(True)
        except OSError:
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return bool(answers)


def _load_file(vit, path):
    """Load the blocks and the norm of ``vit`` from a file; none of their weights may be missing or left over."""
    parts = ("blocks.", "norm.")
    wanted = {key: value for key, value in vit.state_dict().items() if key.startswith(parts)}
    given = {key: value for key, value in read_weights(path).items() if key.startswith(parts)}
    fitting = {key: value for key, value in given.items() if key in wanted and value.shape == wanted[key].shape}
    if len(fitting) != len(wanted) or len(fitting) != len(given):
        raise CheckpointError(
            f"{path} does not hold the Transformer that model.visual_embed_type and visual_embed_kwargs describe: of "
            f"its {len(wanted)} weights {len(fitting)} match, {len(wanted.keys() - given.keys())} are missing, "
            f"{len(given.keys() - wanted.keys())} are unexpected, the others differ in shape")
    vit.load_state_dict(fitting, strict=False)


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


def prompted_block(block, x, prompts):
    """Run a timm block on ``x`` (B, N, C) with ``prompts`` (B or 1, P, C) beside it; return (B, N, C).

    The block's outputs at the prompts are not wanted, so prompts take part as keys and values only: no query, no
    projection and no MLP is computed for them. The result is that of the block on the concatenated sequence.
    """
    attention = block.attn
    x = x + _scaled(block, "1", _attend(attention, block.norm1(x), block.norm1(prompts)))
    return x + _scaled(block, "2", block.mlp(block.norm2(x)))


def _scaled(block, number, branch):
    """Apply what a timm block does to a residual branch: layer scale and drop path."""
    return getattr(block, f"drop_path{number}")(getattr(block, f"ls{number}")(branch))


def _attend(attention, x, prompts):
    width = x.shape[-1]
    heads = attention.num_heads
    weight, bias = attention.qkv.weight, attention.qkv.bias
    q, own = F.linear(x, weight, bias).split([width, 2 * width], dim=-1)
    other = F.linear(prompts, weight[width:], None if bias is None else bias[width:])  # B or 1, P 2C
    keys_values = torch.cat([other.expand(x.shape[0], -1, -1), own], dim=1)  # B P+N 2C
    k, v = keys_values.unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)  # B H P+N C/H
    q = q.unflatten(-1, (heads, -1)).transpose(1, 2)  # B H N C/H
    x = F.scaled_dot_product_attention(attention.q_norm(q), attention.k_norm(k), v)
    return attention.proj(attention.norm(x.transpose(1, 2).flatten(2)))
