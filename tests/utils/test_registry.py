import pytest

from utils.errors import ConfigError
from utils.registry import Registry

THINGS = Registry("thing")


@THINGS.register
class Box:
    def __init__(self, *, width, height=2):
        self.size = (width, height)


@THINGS.register
class DeepBox(Box):
    def __init__(self, *, depth=1, **box):
        super().__init__(**box)
        self.depth = depth


def test_builds_with_defaults():
    assert THINGS.build({"NAME": "Box", "width": 3}, "thing").size == (3, 2)


def test_keys_of_the_parent_are_known():
    box = THINGS.build({"NAME": "DeepBox", "width": 3, "depth": 4}, "thing")
    assert (box.size, box.depth) == ((3, 2), 4)


@pytest.mark.parametrize(("config", "message"), [
    ({"NAME": "Bok", "width": 1}, r"unknown thing 'Bok' \(did you mean 'Box'\?\)"),
    ({"width": 1}, "key 'thing.NAME' is missing"),
    ({"NAME": "Box"}, "key 'thing.width' is missing"),
    ({"NAME": "Box", "width": 1, "heigth": 2}, r"unknown key 'thing.heigth' \(did you mean 'height'\?\)"),
    ({"NAME": "DeepBox", "width": 1, "heigth": 2}, r"unknown key 'thing.heigth' \(did you mean 'height'\?\)"),
    ({"NAME": "DeepBox"}, "key 'thing.width' is missing"),
    ({"NAME": "Box", "width": 1, "zzz": 2}, r"unknown key 'thing.zzz' \(valid: width, height\)"),
])
def test_errors_name_the_key_and_the_nearest(config, message):
    with pytest.raises(ConfigError, match=message):
        THINGS.build(config, "thing")
