import pytest

from utils.errors import ConfigError
from utils.key_types import PositiveInt
from utils.registry import Registry, schema_of

THINGS = Registry("thing")


@THINGS.register
class Box:
    def __init__(self, *, width, height=2):
        self.size = (width, height)


@THINGS.register
class DeepBox(Box):
    def __init__(self, *, depth: PositiveInt = 1, **box):
        super().__init__(**box)
        self.depth = depth


def test_builds_with_defaults():
    assert THINGS.build({"NAME": "Box", "width": 3}, "thing").size == (3, 2)


def test_keys_of_the_parent_are_known():
    box = THINGS.build({"NAME": "DeepBox", "width": 3, "depth": 4}, "thing")
    assert (box.size, box.depth) == ((3, 2), 4)


def test_every_key_has_its_value():
    assert THINGS.resolve({"NAME": "DeepBox", "width": 3}, "thing") == {
        "NAME": "DeepBox", "width": 3, "height": 2, "depth": 1}


def test_a_signature_becomes_a_schema_once():
    assert schema_of(Box) is schema_of(Box)
    assert list(schema_of(DeepBox).model_fields) == ["width", "height", "depth"]
    assert THINGS.takes("DeepBox", "height")
    assert not THINGS.takes("Box", "depth")


@pytest.mark.parametrize(("config", "message"), [
    ({"NAME": "DeepBox", "width": 1, "depth": 0}, "thing.depth is 0; it must be a whole number of at least 1"),
    ({"NAME": ["Box"]}, r"unknown thing '\['Box'\]' \(did you mean 'Box'\?\)"),
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
