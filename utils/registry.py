"""Names in YAML files → classes, with strict checking of the keys that a class takes."""
import difflib
import inspect

from utils.errors import ConfigError


class Registry:
    """A table of classes that are built from a config section by the name under ``NAME``.

    The keyword-only parameters of a class's ``__init__`` are its config keys and their defaults, so a signature is
    the one place where a key is declared.
    """

    def __init__(self, kind):
        self.kind = kind
        self.classes = {}

    def register(self, cls):
        """Add ``cls`` under its own name; usable as a decorator."""
        self.classes[cls.__name__] = cls
        return cls

    def get(self, name):
        """Return the class called ``name``; ConfigError names the nearest one that exists."""
        if name not in self.classes:
            raise ConfigError(f"unknown {self.kind} '{name}'{nearest(name, self.classes)}")
        return self.classes[name]

    def takes(self, name, key):
        """Return whether the class called ``name`` has the config key ``key``."""
        return key in _parameters(self.get(name))

    def build(self, config, section):
        """Build the class that ``config['NAME']`` names from the other keys of ``config``.

        ``section`` is where ``config`` stands in the file (``model``, ``dataset.train``), for error messages.
        """
        if "NAME" not in config:
            raise ConfigError(f"key '{section}.NAME' is missing; it names a {self.kind}: {', '.join(self.classes)}")
        cls = self.get(config["NAME"])
        keys = {key: value for key, value in config.items() if key != "NAME"}
        check_keys(cls, keys, section)
        return cls(**keys)


def check_keys(function, given, section):
    """Raise ConfigError unless ``given`` are keywords that ``function`` (or a class) takes, none missing."""
    parameters = _parameters(function)
    for key in given:
        if key not in parameters:
            raise ConfigError(f"unknown key '{section}.{key}'{nearest(key, parameters)}")
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and key not in given:
            raise ConfigError(f"key '{section}.{key}' is missing")


def check_whole(least, **values):
    """Raise ConfigError unless all ``values``, keys of ``model``, are whole numbers of at least ``least``."""
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"model.{key} is {value!r}; it must be a whole number of at least {least}")


def check_whole_lists(length, each="scales", **values):
    """Raise ConfigError unless all ``values``, keys of ``model``, list ``length`` whole numbers of at least 1.

    ``each`` says in the message what they are of.
    """
    for key, value in values.items():
        if not isinstance(value, (list, tuple)) or len(value) != length or not all(
                type(number) is int and number >= 1 for number in value):
            raise ConfigError(f"model.{key} is {value!r}; it must list a whole number of at least 1 for each of the "
                              f"{length} {each}")


def check_number(least, most, **values):
    """Raise ConfigError unless all ``values``, keys of ``model``, are numbers from ``least`` to ``most``."""
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise ConfigError(f"model.{key} is {value!r}; it must be a number from {least:g} to {most:g}")


def _parameters(function):
    """Return the keywords of a function, or of a class; ``**`` of an ``__init__`` stands for those of its parent."""
    if not inspect.isclass(function):
        return inspect.signature(function).parameters
    parameters = {}
    for cls in function.__mro__:
        if "__init__" in vars(cls):
            own = list(inspect.signature(cls.__init__).parameters.values())[1:]
            parameters = {p.name: p for p in own if p.kind is p.KEYWORD_ONLY} | parameters
            if all(p.kind is not p.VAR_KEYWORD for p in own):
                break
    return parameters


def nearest(word, known):
    """Return `` (did you mean 'x'?)`` for the nearest of ``known``, or the whole list where none is near."""
    known = [str(key) for key in known]
    match = difflib.get_close_matches(str(word), known, 1, 0.6)
    if match:
        return f" (did you mean '{match[0]}'?)"
    return f" (valid: {', '.join(known)})" if known else ""
