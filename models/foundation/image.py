"""The path of ``models.i2p_mae.image_model`` in version 0.1, for scripts that import it."""
from models.i2p_mae.image_model import ImageModel, build_image_model

__all__ = ["ImageModel", "build_image_model"]
