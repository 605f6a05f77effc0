"""The registry of data sets."""
from utils.registry import Registry

DATASETS = Registry("dataset")


def build_dataset_from_cfg(base, others, section="dataset"):
    """Build the data set that ``base['NAME']`` names, with the keys of ``base`` and, over them, of ``others``.

    Raises ConfigError for an unknown name or key, DataError where the files are not what they should be.
    """
    return DATASETS.build({**base, **(others or {})}, section)
