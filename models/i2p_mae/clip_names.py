"""CLIP's weights under the names that OpenAI, and so the published I2P-MAE, has for them."""
import torch

from models.foundation.vision import CLIP_TOWERS
from models.i2p_mae.image_model import ImageModelKeys, build_image_model
from utils.checkpoint import read_weights
from utils.errors import CheckpointError, ConfigError
from utils.validation import check

PREFIX = "clip_model."  # of the image model in published files
SIZES = ("input_resolution", "context_length", "vocab_size")  # which OpenAI's files hold beside the weights
# parts of timm's names → OpenAI's, those that contain others first
PARTS = (("patch_embed.proj", "conv1"), ("norm_pre", "ln_pre"), ("blocks.", "transformer.resblocks."),
         ("attn.qkv.", "attn.in_proj_"), ("attn.proj", "attn.out_proj"), ("norm1", "ln_1"), ("norm2", "ln_2"),
         ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"), ("norm.", "ln_post."))


def openai_weights(tower: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return timm's weights of an image tower under OpenAI's names; what timm alone has, zeros, is left out."""
    renamed = {}
    for key, value in tower.items():
        if key == "cls_token":
            renamed["visual.class_embedding"] = value.flatten()
        elif key == "pos_embed":
            renamed["visual.positional_embedding"] = value.squeeze(0)
        elif key == "head.weight":
            renamed["visual.proj"] = value.T.contiguous()
        elif key != "head.bias":
            for timm_part, openai_part in PARTS:
                key = key.replace(timm_part, openai_part)
            renamed[f"visual.{key}"] = value
    return renamed


def clip_in_file(path) -> dict[str, torch.Tensor]:
    """Return the weights of CLIP in a file under OpenAI's names: all of OpenAI's file, the image tower of timm's."""
    weights = read_weights(path)
    if "visual.class_embedding" in weights:
        return {key: value for key, value in weights.items() if key not in SIZES}
    if "norm_pre.weight" in weights and "cls_token" in weights:
        return openai_weights(weights)
    raise CheckpointError(f"{path} holds no CLIP under OpenAI's or timm's names")


def clip_of(section: dict | None) -> dict[str, torch.Tensor]:
    """Return the weights of the image tower that the ``model`` section of an I2P_MAE describes.

    Raises ConfigError where they cannot be had, or are not CLIP's.
    """
    if not isinstance(section, dict):
        raise ConfigError("nothing says which one it was")
    keys = check(ImageModelKeys, section.get("clip_config"), "model.clip_config")
    if f"CLIP:{keys.visual_encoder.removeprefix('CLIP:')}" not in CLIP_TOWERS:
        raise ConfigError(f"the published code knows CLIP alone, not {keys.visual_encoder}")
    return openai_weights(build_image_model(keys).model.state_dict())
