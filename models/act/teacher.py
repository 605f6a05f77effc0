"""The frozen autoencoder of stage I that a student learns from."""
import warnings
from typing import Any, Literal

from models.act.prompted_dvae import without_weights
from models.build import MODELS, build_model_from_cfg
from utils.checkpoint import load_model, read_weights
from utils.errors import ConfigError, nearest
from utils.key_types import NonNegativeInt, Section
from utils.registry import schema_of

PATH = "model.dvae_config"


class Teacher(Section, extra="allow"):
    """``model.dvae_config``: the keys of the autoencoder called ``NAME``, and these.

    Keys:
        NAME: the autoencoder's class.
        ckpt: its stage-I checkpoint; without one the teacher is untrained.
        teacher_codes: ``gumbel`` samples the codes, as published, ``argmax`` takes the most likely ones, and ``soft``
            mixes the codebook's rows by their probabilities.
        teacher_mode: ``eval``, or ``train``, which keeps batch statistics and dropout on, as the published code does.
        teacher_target: ``after_dgcnn2``, or ``before_dgcnn2``: what the foundation model gives.
        teacher_layer: a block of the foundation model, from 0, whose output is the target instead.
    """

    NAME: str = "ACTPromptedDiscreteVAEwithVIT"
    ckpt: str | None = None
    teacher_codes: Literal["gumbel", "argmax", "soft"] = "gumbel"
    teacher_mode: Literal["eval", "train"] = "eval"
    teacher_target: Literal["after_dgcnn2", "before_dgcnn2"] = "after_dgcnn2"
    teacher_layer: NonNegativeInt | None = None

    @property
    def autoencoder(self) -> dict[str, Any]:
        """The config section of the autoencoder; ConfigError for a key that is neither its nor the teacher's."""
        section = self.model_extra or {}
        known = [*schema_of(MODELS.get(self.NAME)).model_fields, *type(self).model_fields]
        for key in section:
            if key not in known:
                raise ConfigError(f"unknown key '{PATH}.{key}'{nearest(key, known)}")
        return {"NAME": self.NAME, **section}

    def resolved(self, path: str = "") -> dict[str, Any]:
        """Return all keys with the defaults of the autoencoder's class, too."""
        return {**MODELS.resolve(self.autoencoder, path), **super().resolved(path)}


class Tokenizer(Teacher):
    """The same where a DiscreteVAE is meant unless ``NAME`` says otherwise."""

    NAME: str = "DiscreteVAE"


def build_teacher(keys: Teacher) -> Any:
    """Build the frozen stage-I autoencoder of ``dvae_config`` and load its checkpoint."""
    section = keys.autoencoder
    if keys.ckpt and "visual_embed_type" in section:  # the checkpoint holds the foundation Transformer too
        section |= without_weights(section)
    teacher = build_model_from_cfg(section, PATH)
    if keys.ckpt:
        load_model(teacher, read_weights(keys.ckpt), keys.ckpt)
    else:
        warnings.warn(f"{PATH}.ckpt is not given: the teacher is untrained", stacklevel=2)
    return teacher.requires_grad_(False)


def upgrade_teacher(teacher, weights):
    """Return a file's weights, those of ``dvae_tokenizer`` as ``teacher`` writes them today."""
    prefix = "dvae_tokenizer."
    inner = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    return {**{key: value for key, value in weights.items() if not key.startswith(prefix)},
            **{prefix + key: value for key, value in teacher.upgrade_weights(inner).items()}}
