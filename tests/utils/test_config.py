import pytest

from utils.config import load_config, require_for_training, save_config
from utils.errors import ConfigError

MINIMAL = """
optimizer: {type: AdamW, kwargs: {lr: 5e-4, weight_decay: 0.05}}
scheduler: {type: CosLR, kwargs: {epochs: 10, initial_epochs: 1}}
dataset:
  train: {_base_: data.yaml, others: {subset: train}}
model: {NAME: PointTransformer, depth: 2, nested: {a: 1, b: 2}}
total_bs: 8
max_epoch: 10
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "data.yaml").write_text("NAME: Shapes\nN_POINTS: 64\n")
    path = tmp_path / "config.yaml"
    path.write_text(MINIMAL)
    return path


def test_values_types_and_includes(config):
    loaded = load_config(config)
    assert loaded.optimizer.kwargs.lr == 5e-4  # YAML 1.1 alone reads 5e-4 as text
    assert loaded.dataset.train._base_ == {"NAME": "Shapes", "N_POINTS": 64}
    assert loaded.dataset.train.others.subset == "train"
    assert loaded.step_per_update == 1


def test_inheriting_merges_sections(config, tmp_path):
    child = tmp_path / "child.yaml"
    child.write_text("_base_: config.yaml\nmodel: {depth: 6, nested: {b: 3}}\ntotal_bs: 2\n")
    loaded = load_config(child)
    assert loaded.model == {"NAME": "PointTransformer", "depth": 6, "nested": {"a": 1, "b": 3}}
    assert (loaded.total_bs, loaded.max_epoch) == (2, 10)


@pytest.mark.parametrize(("text", "value"), [
    ("model.depth=3", 3), ("model.depth=1e-3", 1e-3), ("model.depth=true", True), ("model.depth=[1, 2]", [1, 2]),
    ("model.depth=auto", "auto"), ("model.depth=null", None), ("model.depth=a=b", "a=b")])
def test_overrides_are_typed_like_yaml(config, text, value):
    assert load_config(config, [text]).model.depth == value


@pytest.mark.parametrize(("overrides", "message"), [
    (["max_epochs=3"], r"config.yaml: unknown key 'max_epochs' \(did you mean 'max_epoch'\?\)"),
    (["optimizer.kwargs.lrr=3"], r"unknown key 'optimizer.kwargs.lrr' \(did you mean 'lr'\?\)"),
    (["dataset.trian=3"], r"unknown key 'dataset.trian' \(did you mean 'train'\?\)"),
    (["optimizer=3"], "optimizer is 3; it must be a section of type, kwargs, layer_decay"),
    (["total_bs.a=3"], "--set total_bs.a=3: 'total_bs' is a value, not a section"),
    (["total_bs"], "--set total_bs: write it as key.path=value"),
    (["total_bs=[1"], "not valid YAML"),
])
def test_wrong_overrides(config, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(config, overrides)


def test_missing_key(config):
    config.write_text(MINIMAL.replace("total_bs: 8", ""))
    with pytest.raises(ConfigError, match=r"config.yaml: key 'total_bs' is missing"):
        load_config(config)


@pytest.mark.parametrize(("text", "message"), [
    (MINIMAL + "total_bs: 9\n", "key 'total_bs' is given twice"),
    (MINIMAL.replace("data.yaml", "absent.yaml"), "absent.yaml, which does not exist"),
    ("_base_: config.yaml\n", "leads back to the file itself"),
    ("a: [1\n", "not valid YAML"),
    ("", "holds no keys"),
])
def test_damaged_files(config, text, message):
    config.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(config)


def test_absent_file(tmp_path):
    with pytest.raises(ConfigError, match="absent.yaml cannot be read: No such file"):
        load_config(tmp_path / "absent.yaml")


def test_a_saved_config_loads_to_the_same(config, tmp_path):
    loaded = load_config(config, ["model.depth=5"])
    save_config(loaded, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == loaded


def splits_of(path, svm):
    added = f"subset: train}}}}\n  val: {{_base_: data.yaml}}\n  svm: {svm}\n"
    path.write_text(MINIMAL.replace("subset: train}}\n", added))
    return load_config(path).dataset


def test_the_data_of_a_linear_svm(config):
    """``dataset.svm``, as I2P-MAE's files have it, stands for both subsets of one data set or names each."""
    half = "_base_: data.yaml, others: {subset: train, size: 3}"
    for svm in ("{_base_: data.yaml, others: {partition: train, size: 3}}",
                f"{{train: {{{half}}}, test: {{_base_: data.yaml, others: {{size: 3}}}}}}"):
        splits = splits_of(config, svm)
        assert "svm" not in splits
        for name, subset in (("extra_train", "train"), ("val", "test")):
            assert splits[name]._base_ == {"NAME": "Shapes", "N_POINTS": 64}
            assert splits[name].others == {"subset": subset, "size": 3}
    for svm in ("3", "{train: {_base_: data.yaml}}", "{_base_: 3}", "{train: 1, test: 2}"):
        with pytest.raises(ConfigError, match="config.yaml: key 'dataset.svm' must be a data set"):
            splits_of(config, svm)


def test_a_config_for_probes_alone(config):
    config.write_text("dataset: {svm: {_base_: data.yaml}}\nmodel: {NAME: I2P_MAE}\ntotal_bs: 8\n")
    loaded = load_config(config)
    with pytest.raises(ConfigError, match="config.yaml: key 'optimizer.type' is missing; training needs it"):
        require_for_training(loaded, config)
    config.write_text("dataset: {val: {_base_: data.yaml}}\nmodel: {NAME: I2P_MAE}\ntotal_bs: 8\n")
    with pytest.raises(ConfigError, match="config.yaml: key 'optimizer.type' is missing"):
        load_config(config)
