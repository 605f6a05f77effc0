"""YAML files → one EasyDict: includes, overrides from the command line, strict keys."""
import argparse
import os
import pathlib
import re

import yaml
from easydict import EasyDict

from utils.errors import ConfigError
from utils.files import replacing
from utils.text import read_text

MOST_VALUES, DEEPEST = 100_000, 40  # of a file


class Loader(yaml.SafeLoader):
    """YAML 1.1 with numbers such as ``5e-4`` read as numbers, and a key given twice refused."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node):
        super().flatten_mapping(node)
        if len(node.value) > MOST_VALUES:  # each merge of merged sections takes a multiple of them
            raise yaml.constructor.ConstructorError(None, None, f"more than {MOST_VALUES} merged keys", node.start_mark)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789."))


def load_config(path, overrides=()):
    """Read the config file ``path``, apply ``key.path=value`` overrides and check the keys of ``schema.Config``.

    A top-level ``_base_`` names a file to start from; ``_base_`` inside a dataset split names the file of that data
    set. The defaults of the sections at the top are filled in; what ``model`` and the data sets hold is checked by
    their classes. Raises ConfigError naming the file, the key and the nearest valid one.
    """
    given = load_section(path, overrides)
    try:
        config = checked(given)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if "train" in config.dataset or "extra_train" not in config.dataset:
        require_for_training(config, path)  # otherwise it is for probing alone
    return config


def checked(config: dict) -> EasyDict:
    """Return ``config`` as an EasyDict with every default of ``schema.Config``; ConfigError where it does not fit."""
    from utils.schema import Config  # pydantic takes a while to import
    from utils.validation import check

    return EasyDict(check(Config, config).resolved())


def load_section(path, overrides=()):
    """Read the config file ``path`` and apply overrides without checking keys: a data set's file, or a run's."""
    config = _read(pathlib.Path(path))
    for override in overrides:
        _override(config, override)
    try:
        _check_texts(config)
        _replace_svm(config.get("dataset"))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return config


def _check_texts(value):
    """Raise ConfigError where a key is no text: YAML reads ``on:`` as true and ``1:`` as a number."""
    for key in value if isinstance(value, dict) else ():
        if not isinstance(key, str):
            raise ConfigError(f"key {key} is not a text; write it in quotes")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_texts(inner)


def _replace_svm(splits):
    """Put what I2P-MAE's files call ``dataset.svm`` where it is used: ``extra_train`` and ``val``.

    It is a data set, of which both subsets are meant, or a section of each subset. A ``val`` beside it, which I2P-MAE's
    files have for no use, gives way.
    """
    if not isinstance(splits, dict) or "svm" not in splits:
        return
    svm = splits.pop("svm")
    halves = {"train": svm, "test": svm}
    if isinstance(svm, dict) and "_base_" not in svm:
        halves = {"train": svm.get("train"), "test": svm.get("test", svm.get("val"))}
    for subset, target in (("train", "extra_train"), ("test", "val")):
        half = halves[subset]
        if not isinstance(half, dict) or not isinstance(half.get("_base_"), dict):
            raise ConfigError("key 'dataset.svm' must be a data set (_base_, others), or hold the sections train and "
                              "test")
        base, others = ({key: value for key, value in (half.get(name) or {}).items()
                         if key not in ("subset", "partition")} for name in ("_base_", "others"))
        splits[target] = {"_base_": base, "others": {**others, "subset": subset}}


def apply_few_shot(config, args):
    """Put ``--way``, ``--shot`` and ``--fold`` into the few-shot data sets of ``config``.

    Raises ConfigError where they are given and the config has no such data set.
    """
    given = {key: getattr(args, key, None) for key in ("way", "shot", "fold")}
    given = {key: value for key, value in given.items() if value is not None}
    few_shot = [section for section in config.get("dataset", {}).values()
                if section.get("_base_", {}).get("NAME") == "ModelNetFewShot"]
    if given and not few_shot:
        raise ConfigError("--way, --shot and --fold are for configs with few-shot data")
    for section in few_shot:
        section["others"] = {**section.get("others", {}), **given}


def apply_data_flags(config: dict, args: argparse.Namespace) -> None:
    """Put what the command line says of the data into ``config``: few-shot folds, and ``--allow_bad``.

    Raises ConfigError where the config has no data set that it is for.
    """
    apply_few_shot(config, args)
    if args.allow_bad is None:
        return
    folders = [section for section in config.get("dataset", {}).values()
               if section.get("_base_", {}).get("NAME") == "PointFolder"]
    if not folders:
        raise ConfigError("--allow_bad is for configs with the data set PointFolder")
    for section in folders:
        section["others"] = {**section.get("others", {}), "allow_bad": args.allow_bad}


def _parse(text):
    """Return what the YAML ``text`` says; yaml.YAMLError where it is wrong, too large or too deep."""
    try:
        value = yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:  # of its values' constructors
        reason = "it is too deeply nested" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise yaml.YAMLError(f"a value cannot be read: {reason[:100]}") from error
    _check_size(value)
    return value


def _check_size(value):
    """Raise yaml.YAMLError for what would take for ever to go through; a few lines with aliases can say that."""
    waiting, count = [(value, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        count += len(inner)
        if count > MOST_VALUES or depth > DEEPEST:
            raise yaml.YAMLError(f"it has more than {MOST_VALUES} values, or sections more than {DEEPEST} deep")
        if isinstance(value, int) and value.bit_length() > 64:
            raise yaml.YAMLError("a number is too large")
        waiting += [(entry, depth + 1) for entry in inner]


def read_yaml(path):
    """Return the keys in the file ``path`` as they stand; ConfigError names the file and what is wrong."""
    path = pathlib.Path(path)
    try:
        config = _parse(read_text(path))
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path} holds no keys")
    return config


def _read(path, ancestors=()):
    if path in ancestors:
        raise ConfigError(f"{path}: _base_ leads back to the file itself")
    config = _include(read_yaml(path), path, (*ancestors, path))
    base = config.pop("_base_", None)
    if isinstance(base, str):
        config = _merge(_read(_resolve(base, path), (*ancestors, path)), config)
    return config


def _include(config, path, ancestors):
    """Replace the file names under nested ``_base_`` keys by what the files hold."""
    for key, value in config.items():
        if isinstance(value, dict):
            if isinstance(value.get("_base_"), str):
                value["_base_"] = _read(_resolve(value["_base_"], path), ancestors)
            _include(value, path, ancestors)
        elif isinstance(key, str) and "." in key:
            raise ConfigError(f"{path}: key '{key}' holds a dot; nest the keys instead")
    return config


def _resolve(name, path):
    """An included file stands relative to the working directory, as published, or to the file that names it."""
    for candidate in (pathlib.Path(name), path.parent / name, pathlib.Path(__file__).parent.parent / name):
        if candidate.is_file():
            return candidate
    raise ConfigError(f"{path}: _base_ names {name}, which does not exist")


def _merge(base, own):
    """Return ``base`` with the keys of ``own`` over it, section by section.

    A section that names another class (``NAME``) than the first, or another data set, replaces it.
    """
    merged = dict(base)
    for key, value in own.items():
        other = merged.get(key)
        both = isinstance(value, dict) and isinstance(other, dict) and key != "_base_"
        both = both and value.get("NAME") in (None, other.get("NAME"))
        merged[key] = _merge(other, value) if both else value
    return merged


def _override(config, text):
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text}: write it as key.path=value")
    try:
        value = _parse(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text}: the value is not valid YAML") from error
    *sections, last = key.split(".")
    for section in sections:
        config = config.setdefault(section, {})
        if not isinstance(config, dict):
            raise ConfigError(f"--set {text}: '{section}' is a value, not a section")
    config[last] = value


def require_for_training(config: dict, path: str | os.PathLike) -> None:
    """Raise ConfigError where ``config``, of the file ``path``, lacks what training needs."""
    from utils.schema import TRAINING, Config
    from utils.validation import first_missing

    for key in TRAINING:
        missing = first_missing(Config, config, key)
        if missing:
            raise ConfigError(f"{path}: key '{missing}' is missing; training needs it")


def plain(config):
    """Return ``config`` as plain dicts and lists, for writing."""
    if isinstance(config, dict):
        return {key: plain(value) for key, value in config.items()}
    return [plain(value) for value in config] if isinstance(config, (list, tuple)) else config


def as_text(config):
    """Return ``config`` as YAML."""
    return yaml.safe_dump(plain(config), sort_keys=False)


def save_config(config, path):
    """Write the resolved ``config`` to ``path`` as YAML."""
    replace_text(path, as_text(config))


def replace_text(path, text):
    """Write ``text`` to ``path`` by way of a temporary file."""
    with replacing(path) as file:
        file.write(text.encode())
