"""Names in YAML files → classes, with strict checking of the keys that a class takes."""
import functools
import inspect
from typing import Any, TypeVar

import pydantic

from utils.errors import ConfigError, nearest
from utils.key_types import Section
from utils.validation import check

Class = TypeVar("Class")


class Registry:
    """A table of classes that are built from a config section by the name under ``NAME``.

    The keyword-only parameters of a class's ``__init__`` are its config keys: their annotations say what values they
    may have, their defaults stand for keys that are left out. A signature is the one place where a key is declared.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.classes: dict[str, type] = {}

    def register(self, cls: type[Class]) -> type[Class]:
        """Add ``cls`` under its own name; usable as a decorator."""
        self.classes[cls.__name__] = cls
        return cls

    def get(self, name: Any) -> type:
        """Return the class called ``name``; ConfigError names the nearest one that exists."""
        if not isinstance(name, str) or name not in self.classes:
            raise ConfigError(f"unknown {self.kind} '{name}'{nearest(name, self.classes)}")
        return self.classes[name]

    def takes(self, name: str, key: str) -> bool:
        """Return whether the class called ``name`` has the config key ``key``."""
        return key in schema_of(self.get(name)).model_fields

    def build(self, config: dict[str, Any], section: str) -> Any:
        """Build the class that ``config['NAME']`` names from the other keys of ``config``.

        ``section`` is where ``config`` stands in the file (``model``, ``dataset.train``), for error messages.
        """
        cls, keys = self._checked(config, section)
        return cls(**keys.keywords())

    def resolve(self, config: dict[str, Any], section: str) -> dict[str, Any]:
        """Return the keys of ``config``, checked, with the default of every key that it leaves out."""
        cls, keys = self._checked(config, section)
        return {"NAME": cls.__name__, **keys.resolved(section)}

    def _checked(self, config: dict[str, Any], section: str) -> tuple[type, Section]:
        """Return the class that ``config['NAME']`` names and its keys."""
        if "NAME" not in config:
            raise ConfigError(f"key '{section}.NAME' is missing; it names a {self.kind}: {', '.join(self.classes)}")
        cls = self.get(config["NAME"])
        keys = {key: value for key, value in config.items() if key != "NAME"}
        return cls, check(schema_of(cls), keys, section)


@functools.cache
def schema_of(cls: type) -> type[Section]:
    """Return the config keys of a class as a schema: the keyword-only parameters of its ``__init__``.

    ``**`` there stands for the keys of its parent.
    """
    fields: dict[str, Any] = {}
    for ancestor in cls.__mro__:
        if "__init__" in vars(ancestor):
            parameters = list(inspect.signature(ancestor.__init__, eval_str=True).parameters.values())[1:]
            fields = {parameter.name: _field(parameter) for parameter in parameters
                      if parameter.kind is parameter.KEYWORD_ONLY} | fields
            if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
                break
    return pydantic.create_model(cls.__name__, __base__=Section, **fields)


def _field(parameter: inspect.Parameter) -> tuple[Any, Any]:
    """Return type and default of a keyword as ``pydantic.create_model`` takes them."""
    empty = inspect.Parameter.empty
    return (Any if parameter.annotation is empty else parameter.annotation,
            ... if parameter.default is empty else parameter.default)
