"""Names of weights in the files of this family of methods: what stands before them, and whose they are.

The methods share one encoder, whose weights are called alike; their files differ in what they call the encoder, and in
what they hold beside it. docs/CHECKPOINTS.md lists them.
"""
import re
from collections import Counter

from utils.errors import CheckpointError

# of DataParallel and DDP, of torch.compile, and of the published loaders
WRAPPERS = ("module.", "_orig_mod.", "base_model.")
# what the encoder is called in pre-training, by ACT, Point-BERT, Point-MAE and ReCon, ULIP and OpenShape
ENCODERS = ("ACT_encoder.", "transformer_q.", "MAE_encoder.", "point_encoder.")
CLASS_TOKEN = ("cls_token", "cls_pos")  # Point-MAE's encoder has none before fine-tuning

# the global tokens of ReCon and what its blocks have for them
RECON = r"(?:img|text)_(?:token|pos)|blocks\.blocks\.\d+\.(?:norm1|norm2|attn|mlp)_contrast"
# what files may hold beside an encoder: of the methods themselves, and heads of other tasks
BESIDE_ENCODER = (RECON, "mask_token", r"lm_head\.", r"cls_head\.", r"dvae\.", r"dvae_tokenizer\.", r"ACT_decoder\.",
                  r"decoder_pos_embed\.", "decoder_cls_pos", r"proj_head\.", r"cloud_head\.", r"transformer_k\.",
                  "queue")

# whose names these are; the first that fits is said, so what is a method's alone stands before what it shares
METHODS = (
    ("ReCon", RECON + r"|(?:img|text)_(?:proj|encoder)|self_contrastive"),
    ("ULIP or OpenShape", "point_encoder|pc_projection|image_projection"),
    ("ACT", "ACT_encoder|ACT_decoder|dvae_tokenizer"),
    ("Point-MAE", "MAE_encoder|MAE_decoder|increase_dim"),
    ("Point-BERT", "transformer_q|transformer_k|queue_ptr|queue|dvae"),
    ("I2P-MAE", "clip_model|rec_head_[23]d"),
    ("I2P-MAE or Point-M2AE", "h_encoder|h_decoder|token_prop|decoder_pos_embeds|rec_head"),
    ("a segmentation model", r"propagation_\d(?:_cls)?|label_conv(?:_cls)?|convs\d(?:_cls)?|bns\d(?:_cls)?"),
    ("an autoencoder of stage I", "codebook|dgcnn_[12]|visual_embed"),
    ("OpenAI's CLIP", "visual|token_embedding|text_projection|logit_scale"),
    ("an image Transformer of timm's", "patch_embed"),
)
NOTES = {"ReCon": "ReCon's blocks add to normed tokens, which these do not: fine-tune before use"}


def unwrap(weights: dict, path) -> dict:
    """Return weights without what wrappers have put before their names, in any order and number."""
    bare = {}
    for key, value in weights.items():
        name = strip_wrappers(key)
        if name in bare:
            raise CheckpointError(f"checkpoint {path} holds two weights '{name}', one of them as '{key}'")
        bare[name] = value
    return bare


def strip_wrappers(name: str) -> str:
    """Return ``name`` without wrappers before it, and without those of compiled parts within it."""
    while name.startswith(WRAPPERS):
        name = name.split(".", 1)[1]
    return name.replace("._orig_mod.", ".")


def strip_prefix(weights: dict, prefixes: tuple[str, ...]) -> tuple[dict, list[str], str | None]:
    """Take the weights that bear the first of ``prefixes`` that is in use, without it.

    Returns these, the names of the others and the prefix; all weights, no names and None where none is in use.
    """
    for prefix in prefixes:
        if any(key.startswith(prefix) for key in weights):
            inner = {strip_wrappers(key.removeprefix(prefix)): value for key, value in weights.items()
                     if key.startswith(prefix)}
            return inner, [key for key in weights if not key.startswith(prefix)], prefix
    return weights, [], None


def common_prefix(names, own) -> str | None:
    """Return what stands before most of the names of a model's ``own`` weights in ``names``, or None."""
    starts = Counter(name[:dot.end()] for name in names for dot in re.finditer(r"\.", name) if name[dot.end():] in own)
    start, count = max(starts.items(), key=lambda entry: entry[1], default=(None, 0))
    return start if 2 * count > len(own) else None


def method_of(names) -> str | None:
    """Return whose names these are, or None where they are nobody's in particular."""
    for method, pattern in METHODS:
        if any(_is(pattern, name) for name in names):
            return method
    return None


def describe_unused(names) -> str:
    """Return what of ``names`` belongs to which method, as an addition to a report; empty where none is known."""
    found = {}
    for name in names:
        for method, pattern in METHODS:
            match = _is(pattern, name)
            if match:
                found.setdefault(method, {}).setdefault(match[0].rsplit(".", 1)[-1])
                break
    text = "; ".join(f"not used: {', '.join(parts)} of {method}" for method, parts in found.items())
    notes = "; ".join(NOTES[method] for method in found if method in NOTES)
    return "".join(f"; {part}" for part in (text, notes) if part)


def _is(pattern, name):
    return re.match(rf"(?:{pattern})(?=\.|$)", name)


def head_widths(weights: dict, prefix: str = "cls_head_finetune.") -> list[int]:
    """Return the widths of the linear layers of a head, its input's first; empty where there is none."""
    layers = sorted((int(key.split(".")[1]), value) for key, value in weights.items()
                    if re.fullmatch(re.escape(prefix) + r"\d+\.weight", key) and value.dim() == 2)
    return [layers[0][1].shape[1], *(value.shape[0] for _, value in layers)] if layers else []


def compare_heads(given: dict, own: dict) -> str | None:
    """Say how the classification head in a file differs from the model's, or None where it does not."""
    theirs, ours = head_widths(given), head_widths(own)
    if not theirs or not ours or theirs == ours:
        return None
    whose = ""
    if len(theirs) == 3 and len(ours) != 3:
        whose = ", as Point-BERT's"
    elif theirs[0] == 2 * ours[0]:
        whose = ", as ReCon's"
    chains = [" → ".join(map(str, widths)) for widths in (theirs, ours)]
    return f"its head is {chains[0]}{whose}, this model's {chains[1]}"
