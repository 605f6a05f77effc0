"""The config section of a student that learns from masked clouds."""
from typing import Any

from utils.key_types import Fraction, PositiveInt, Section

ENCODER_KEYS = ("embed_dim", "depth", "num_heads", "drop_path_rate", "cls_dim")


class Student(Section):
    """``model.transformer_config``: the Transformer that learns.

    Keys:
        embed_dim: its width.
        depth: its blocks.
        num_heads: heads of attention.
        drop_path_rate: of the last block; it rises linearly from 0.
        encoder_dims: not used, but published files give it: the patch encoder is as wide as the teacher's.
        cls_dim: width of the contrastive head.
        return_all_tokens: the loss counts visible patches, too.
    """

    embed_dim: PositiveInt = 384
    depth: PositiveInt = 12
    num_heads: PositiveInt = 6
    drop_path_rate: Fraction = 0.1
    encoder_dims: PositiveInt | None = None
    cls_dim: PositiveInt = 512
    return_all_tokens: bool = False

    def encoder(self) -> dict[str, Any]:
        """Return the keywords of the encoder."""
        return {key: getattr(self, key) for key in ENCODER_KEYS}
