"""Write ``docs/configs.md``, a table of every config key, from where the keys are declared.

    python tools/document_configs.py

The type of a key is the annotation of a keyword or of a section's field, its default stands there too, and its meaning
is in the docstring under ``Keys:``.
"""
import inspect
import pathlib
import re
import sys
from collections.abc import Iterator

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from datasets import DATASETS  # noqa: E402 - the script's folder is on the path, the project's is not
from models import MODELS  # noqa: E402
from utils.command import run_command  # noqa: E402
from utils.config import replace_text  # noqa: E402
from utils.key_types import ABSENT, Section  # noqa: E402
from utils.parser import ArgumentParser  # noqa: E402
from utils.registry import Registry, schema_of  # noqa: E402
from utils.schema import Config, Named  # noqa: E402
from utils.validation import annotation_of, describe, fields_of, section_of  # noqa: E402

PAGE = ROOT / "docs" / "configs.md"
HEAD = """# Config keys

Every key of a config file, what it may hold, and its default. This page is written by `python
tools/document_configs.py` from the declarations in the code.

`python main.py --config FILE --print_config` prints a config with the value of every key. A run keeps the same in its
`config.yaml`, which makes the same run even when defaults have changed. `--set a.b=value` overrides a key. An unknown
key, or a value of another type, is an error in one line. Types are strict: `"1"` is no number, but `1` serves where a
number is wanted. A section that is null holds no keys, so all have their defaults.

A top-level `_base_: FILE` names a config to start from, whose keys those of the file override.
"""


def main() -> None:
    ArgumentParser(description="Write docs/configs.md from the declared config keys.").parse_args()
    replace_text(PAGE, render())
    print(f"Written to {PAGE}")


def render() -> str:
    """Return the page."""
    parts = [HEAD, "## The top of a file\n", table(Config, Config), *nested(Config)]
    parts += ["## Models\n", "`model.NAME` names one of these, whose keys stand beside it.\n"]
    for name, cls in MODELS.classes.items():
        schema = schema_of(cls)
        transforms = (f"The default of `train_transforms` is `{as_yaml(cls.train_transforms)}`, that of "
                      f"`test_transforms` is `{as_yaml(cls.test_transforms)}`.\n")
        parts += [f"### {name}\n", summary(cls), transforms, table(schema, cls), *nested(schema, "model.")]
    parts += ["## Data sets\n", "`dataset.<split>._base_.NAME` names one of these, whose keys stand beside it.\n"]
    for name, cls in DATASETS.classes.items():
        parts += [f"### {name}\n", summary(cls), table(schema_of(cls), cls)]
    return "\n".join(parts)


def nested(schema: type[Section], prefix: str = "") -> Iterator[str]:
    """Yield what is to be said of the sections in a section whose keys begin with ``prefix``."""
    names: dict[type[Section], list[str]] = {}
    for key, field in fields_of(schema).items():
        inner = section_of(field)
        if inner not in (None, Named):
            names.setdefault(inner, []).append(f"{prefix}{key}")
    for inner, paths in names.items():
        yield f"#### {', '.join(f'`{path}`' for path in paths)}\n"
        yield summary(inner)
        yield table(inner, inner)
        yield from nested(inner, f"{paths[0]}.")


def table(schema: type[Section], declared_by: type) -> str:
    """Return a Markdown table of the keys of a section, whose meanings a class tells."""
    meaning = meanings(declared_by)
    rows = ["| key | may hold | default | meaning |", "| --- | --- | --- | --- |"]
    for key, field in fields_of(schema).items():
        inner = section_of(field)
        default = "required" if field.is_required() else "" if inner or field.default is ABSENT else (
            f"`{as_yaml(field.default)}`")
        kind = "a section" if inner else describe(annotation_of(field))
        rows.append(f"| `{key}` | {kind} | {default} | {as_markdown(meaning.get(key, ''))} |")
    return "\n".join(rows) + "\n"


def as_yaml(value: object) -> str:
    """Return a default as it would stand in a file."""
    value = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")


def as_markdown(text: str) -> str:
    """Return the text of a docstring as Markdown."""
    return re.sub(r"::$", ":", text, flags=re.MULTILINE).replace("``", "`")


def summary(cls: type) -> str:
    """Return what the docstring of a class says in front of its keys, as Markdown."""
    text = re.split(r"^Keys\b.*:$", inspect.cleandoc(cls.__doc__ or ""), maxsplit=1, flags=re.MULTILINE)[0].strip()
    return f"{as_markdown(text)}\n"


def meanings(cls: type) -> dict[str, str]:
    """Return key → what the docstrings of a class and its parents say of it."""
    found: dict[str, str] = {}
    for ancestor in reversed(cls.__mro__):
        _, *keys = re.split(r"^Keys\b.*:$", inspect.cleandoc(vars(ancestor).get("__doc__") or ""), maxsplit=1,
                            flags=re.MULTILINE)
        for names, text in re.findall(r"^ {4}([\w, ]+): ((?:.|\n {5,})+)", keys[0] if keys else "", re.MULTILINE):
            found |= {name.strip(): " ".join(text.split()) for name in names.split(",")}
    return found


def undocumented(registry: Registry) -> list[str]:
    """Return the keys of a registry's classes that no docstring speaks of."""
    return [f"{name}.{key}" for name, cls in registry.classes.items() for key in fields_of(schema_of(cls))
            if key not in meanings(cls)]


if __name__ == "__main__":
    run_command(main)
