"""Every key of a run's config with its value: those that the file gives, and the defaults of the others."""
import os
from typing import Any

from easydict import EasyDict

from datasets.base import PointCloudDataset
from datasets.build import DATASETS
from models.build import MODELS
from utils.config import checked, plain
from utils.errors import ConfigError


def resolve(given: dict[str, Any], path: str | os.PathLike[str]) -> EasyDict:
    """Return the config ``given``, of the file ``path``, with the default of every key that it leaves out.

    What comes out loads again, is resolved to itself, and makes the same run when defaults have changed. Raises
    ConfigError for keys that the model or a data set does not take.
    """
    try:
        model = MODELS.resolve(given["model"], "model")
        splits = {split: _resolve_split(section, f"dataset.{split}") for split, section in given["dataset"].items()}
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    cls = MODELS.get(model["NAME"])
    transforms = {"train_transforms": list(cls.train_transforms), "test_transforms": list(cls.test_transforms)}
    return checked({**transforms, **given, "model": model, "dataset": splits})


def _resolve_split(section: dict[str, Any], path: str) -> dict[str, Any]:
    """Return a split; the defaults of its data set stand in ``_base_``."""
    keys = DATASETS.resolve({**section["_base_"], **section["others"]}, path)
    others = {key: keys[key] for key in section["others"]}
    return {"_base_": {key: value for key, value in keys.items() if key not in others}, "others": others}


def same_run(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two resolved configs describe the same run.

    The number of classes does not count where the data's folders decide it.
    """
    return plain(_without_decided(one)) == plain(_without_decided(other))


def _without_decided(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config without the number of classes if the data's folders decide it."""
    if not any(_decides_classes(split) for split in config["dataset"].values()):
        return config
    return {**config, "model": {key: value for key, value in config["model"].items() if key != "cls_dim"}}


def _decides_classes(split: dict[str, Any]) -> bool:
    cls = DATASETS.get({**split["_base_"], **split["others"]}["NAME"])
    return cls.classes_of.__func__ is not PointCloudDataset.classes_of.__func__
