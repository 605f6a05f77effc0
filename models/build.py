"""The registry of models."""
from utils.registry import Registry

MODELS = Registry("model")


def build_model_from_cfg(config, section="model"):
    """Build the model that ``config['NAME']`` names; the other keys are its keyword arguments.

    Raises ConfigError for an unknown name, an unknown or missing key, or a value that the model cannot use.
    """
    return MODELS.build(config, section)
