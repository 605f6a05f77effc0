import re

import pytest

from datasets import DATASETS
from models import MODELS
from tools import document_configs
from utils.registry import schema_of
from utils.validation import fields_of


def test_the_page_is_current(run, monkeypatch, tmp_path):
    monkeypatch.setattr(document_configs, "PAGE", tmp_path / "configs.md")
    current = (document_configs.ROOT / "docs" / "configs.md").read_text()
    run(document_configs)
    assert (tmp_path / "configs.md").read_text() == current, "run python tools/document_configs.py"


@pytest.mark.parametrize("registry", [MODELS, DATASETS], ids=["models", "data sets"])
def test_every_key_is_listed_with_its_meaning(registry):
    page = document_configs.render()
    assert document_configs.undocumented(registry) == []
    for name, cls in registry.classes.items():
        section = re.search(rf"^### {name}\n(.*?)(^##|\Z)", page, re.MULTILINE | re.DOTALL)[1]
        for key in fields_of(schema_of(cls)):
            assert f"| `{key}` |" in section


def test_rows_by_hand():
    page = document_configs.render()
    assert ("| `total_bs` | a whole number of at least 1 | required | clouds a step, of all processes together. |"
            in page)
    assert "| `folding_dims` | a list of 2 whole numbers of at least 1 | `[1024, 512]` |" in page
    assert "#### `model.clip_config`" in page
    assert "#### `dataset.train`, `dataset.val`, `dataset.test`, `dataset.extra_train`" in page
