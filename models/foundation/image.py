"""The path of ``models.i2p_mae.image_model`` in version 0.1, for scripts that import it."""
from models.i2p_mae import image_model
from models.i2p_mae.image_model import ImageModel, ImageModelKeys
from utils.validation import check

__all__ = ["ImageModel", "build_image_model"]


def build_image_model(**keys) -> ImageModel:
    """Return the frozen image model that the ``keys`` of ``model.clip_config`` describe, or raise ConfigError."""
    return image_model.build_image_model(check(ImageModelKeys, keys, "model.clip_config"))
