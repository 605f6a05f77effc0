"""What a training can be given beside its config: averages, layer-wise rates, records, profile, seeds."""
import importlib
import json
import math
import sys
import types

import pytest
import torch
from torch import nn

from models import build_model_from_cfg
from tools.engine.ema import Ema
from tools.engine.loaders import EvaluationBatches, TrainingBatches
from tools.engine.optim import build_optimizer, build_scheduler
from tools.engine.records import Records
from tools.engine.run import mixed_seed, seed_step
from utils import checkpoint
from utils.errors import ConfigError
from utils.parser import main_arguments
from utils.schema import Optimizer, Scheduler
from utils.validation import check

pytestmark = pytest.mark.slow

CLASSIFIER = {"NAME": "PointTransformer", "embed_dim": 24, "depth": 2, "num_heads": 2, "encoder_dims": 24, "cls_dim": 4,
              "group_size": 8, "num_group": 8}


def test_an_average_by_hand():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0)
    ema = Ema(model, 0.5)
    expected = 0
    for value in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0):
        model.weight.data.fill_(value)
        ema.update(model)
        kept = min(0.5, (1 + value) / (10 + value))  # n is the value here
        expected = kept * expected + (1 - kept) * value
    assert kept == 0.5
    assert ema.state_dict(model)["weight"].item() == pytest.approx(expected)
    with ema.applied(model):
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 9
    other = Ema(model, 0.5)
    other.load(ema.state_dict(model), ema.updates)
    assert (other.averages["weight"].item(), other.updates) == (pytest.approx(expected), 9)


def test_a_run_with_averages_is_evaluated_and_used_by_them(command):
    flags = ("--scratch_model", "--set", "optimizer.kwargs.lr=0.05")
    averaged = command("finetune", *flags, "--ema", "0.9", "--exp_name", "ema").out
    command("finetune", *flags, "--exp_name", "plain")
    ema, plain = (checkpoint.read(command.experiment("finetune", name) / "ckpt-last.pth") for name in ("ema", "plain"))
    for key, value in plain["base_model"].items():
        assert torch.equal(ema["trained_model"][key], value)  # training itself is the same
    assert not torch.equal(ema["base_model"]["cls_token"], ema["trained_model"]["cls_token"])
    path = command.experiment("finetune", "ema") / "ckpt-last.pth"
    tested = command("finetune", "--test", "--ckpts", path, "--set", "vote.rounds=0").out
    last = averaged[averaged.index("Last        OA"):].split("\n")[0].replace("Last        ", "")
    assert f"Test  {last}" in tested


def test_averages_of_a_resumed_run(command):
    flags = ("finetune", "--scratch_model", "--set", "optimizer.kwargs.lr=0.05")
    command(*flags, "max_epoch=0")
    path = command.experiment("finetune") / "ckpt-last.pth"
    loaded = checkpoint.read(path)["base_model"]["norm.weight"]
    command(*flags, "max_epoch=1", "--resume", "--ema", "0.999999")
    state = checkpoint.read(path)
    averaged, trained = (state[name]["norm.weight"] for name in ("base_model", "trained_model"))
    assert (averaged - loaded).norm() < (trained - loaded).norm()  # they began at what was loaded
    out = command(*flags, "max_epoch=2", "--resume").out
    assert "The run had --ema and goes on without: its averages are given up" in out


def test_nothing_left_to_train_is_no_error(command):
    command("finetune", "--scratch_model", "--val_freq", 50, "--set", "max_epoch=3")
    path = command.experiment("finetune") / "ckpt-last.pth"
    state = checkpoint.read(path)
    checkpoint.save({key: state[key] for key in ("base_model", "optimizer", "epoch")}, path)
    assert "Resuming after epoch 3" in command("finetune", "--scratch_model", "--resume").out
    checkpoint.save({key: state[key] for key in ("base_model", "optimizer")}, path)
    err = command("finetune", "--scratch_model", "--resume", status=2).err
    assert err.endswith("ckpt-last.pth holds no training to resume; give it as --start_ckpts\n")


def test_one_gpu_cannot_be_named_for_several_processes(command, monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    err = command("finetune", "--scratch_model", "--device", "cuda:1", status=2).err
    assert err == "error: --device cuda:1 names one GPU for several processes: give --device cuda, one each\n"


def test_rates_decay_from_the_head_down():
    model = build_model_from_cfg(CLASSIFIER)
    config = Optimizer(type="AdamW", layer_decay=0.5, kwargs={"lr": 0.1, "weight_decay": 0.05})
    optimizer = build_optimizer(config, model)
    schedule = build_scheduler(Scheduler(type="CosLR", kwargs={"epochs": 10}), optimizer)
    schedule.step(0)
    rates = {id(parameter): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups
             for parameter in group["params"]}
    named = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert named["cls_head_finetune.0.weight"] == named["cls_head_finetune.8.weight"] == (0.1, 0.05)
    assert named["norm.weight"] == (0.1, 0.0)
    assert named["blocks.blocks.1.mlp.fc1.weight"] == (0.05, 0.05)
    assert named["blocks.blocks.0.mlp.fc1.weight"] == (0.025, 0.05)
    assert named["encoder.first_conv.0.weight"] == named["pos_embed.0.weight"] == (0.0125, 0.05)
    assert (named["cls_token"], named["cls_pos"]) == ((0.0125, 0.0), (0.0125, 0.05))
    with pytest.raises(ConfigError, match="optimizer.layer_decay is 0; it must be a number above 0 and at most 1"):
        check(Optimizer, {**dict(config), "layer_decay": 0}, "optimizer")
    with pytest.raises(ConfigError, match="fine-tuning a PointTransformer; a Linear does not have it"):
        build_optimizer(config, nn.Linear(1, 1))


def test_layer_decay_is_a_key_of_the_config(command):
    command("finetune", "--scratch_model", "--set", "optimizer.layer_decay=0.65")
    state = checkpoint.read(command.experiment("finetune") / "ckpt-last.pth")
    assert {round(group["lr_scale"], 6) for group in state["optimizer"]["param_groups"]} == {
        1, 0.65, round(0.65 ** 2, 6), round(0.65 ** 3, 6)}


def test_records_are_lines_and_can_be_rewound(tmp_path):
    records = Records(tmp_path, {})
    records.add("val", -1, 0, {"OA": 5.0})
    records.add("train", 0, 4, {"loss": math.nan, "lr": 0.1})
    records.rewind(1)
    records.add("train", 0, 4, {"loss": math.inf})
    records.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"split": "val", "epoch": -1, "iteration": 0, "values": {"OA": 5.0}},
                     {"split": "train", "epoch": 0, "iteration": 4, "values": {"loss": None}}]
    assert records.lines == 2


def test_wandb_gets_the_same_numbers(monkeypatch, tmp_path):
    seen = []
    run = types.SimpleNamespace(log=seen.append, finish=lambda: seen.append("finished"))
    module = types.SimpleNamespace(init=lambda **given: seen.append(given) or run)
    monkeypatch.setitem(sys.modules, "wandb", module)
    folder = tmp_path / "stage" / "cfgs" / "name"
    folder.mkdir(parents=True)
    records = Records(folder, {"total_bs": 4}, "points")
    records.add("train", 3, 40, {"loss": 0.5})
    records.close()
    assert seen == [{"project": "points", "name": "stage-cfgs-name", "id": "stage-cfgs-name", "resume": "allow",
                     "config": {"total_bs": 4}, "dir": str(folder)}, {"train/loss": 0.5, "epoch": 3}, "finished"]


def test_wandb_that_is_not_there_is_one_line(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    err = command("finetune", "--scratch_model", "--wandb", "points", status=2).err
    assert err == "error: --wandb needs the package wandb: pip install wandb\n"


def test_a_profile_is_written_and_changes_nothing(command):
    flags = ("--scratch_model", "--set", "max_epoch=8", "--val_freq", 9)
    out = command("finetune", *flags, "--profile", "--exp_name", "profiled").out
    folder = command.experiment("finetune", "profiled")
    assert "Profile of 10 steps" in out
    assert "aten::addmm" in (folder / "profile.txt").read_text()
    assert json.loads((folder / "profile.json").read_text())["traceEvents"]
    command("finetune", *flags, "--exp_name", "plain")
    one, other = (checkpoint.read_weights(command.experiment("finetune", name) / "ckpt-last.pth")
                  for name in ("profiled", "plain"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_no_two_steps_seeds_or_processes_draw_alike():
    seeds = {mixed_seed(seed, rank, step) for seed in range(4) for rank in range(4) for step in range(500)}
    assert len(seeds) == 4 * 4 * 500
    seed_step(1, 7)
    first = torch.rand(3)
    seed_step(1, 8)
    assert not torch.equal(torch.rand(3), first)
    seed_step(1, 7)
    assert torch.equal(torch.rand(3), first)


@pytest.fixture
def processes(monkeypatch):
    """Return a function that makes this process number ``rank`` of ``count``."""
    def processes(rank, count):
        monkeypatch.setattr("utils.distributed.rank", lambda: rank)
        monkeypatch.setattr("utils.distributed.world_size", lambda: count)

    return processes


def test_processes_share_the_same_training_batches(processes):
    processes(0, 1)
    alone = TrainingBatches(26, 8, seed=3)
    whole = list(alone)
    assert [len(batch) for batch in whole] == [8, 8, 8]
    assert len({index for batch in whole for index in batch}) == 24
    shares = []
    for rank in range(4):
        processes(rank, 4)
        shares.append(list(TrainingBatches(26, 8, seed=3)))
    assert [[index for share in shares for index in share[number]] for number in range(3)] == whole
    processes(0, 1)
    alone.set_epoch(1)
    assert list(alone) != whole
    alone.set_epoch(0, start=2)
    assert list(alone) == whole[2:]
    processes(0, 3)
    with pytest.raises(ConfigError, match="total_bs is 8, .* 3 processes cannot share them: give a multiple of 3"):
        TrainingBatches(26, 8, seed=3)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_processes_share_out_every_cloud_once_in_evaluation(processes, count):
    batches = []
    for rank in range(count):
        processes(rank, count)
        own = EvaluationBatches(13, 4)
        assert own.first == len(batches)
        assert len(own) == len(list(own))
        batches += list(own)
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12]]


def test_resume_auto_starts_what_is_not_there(command):
    assert "Resuming" not in command("finetune", "--scratch_model", "--resume", "auto", "--set", "max_epoch=0").out
    assert "Resuming after epoch 0" in command("finetune", "--scratch_model", "--resume", "auto").out


def test_loading_processes_are_shared_among_training_processes(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(64))
    workers = []
    for count in ("1", "8", "16"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", count)
        workers.append(main_arguments(["--config", "c.yaml"]).num_workers)
    assert workers == [8, 4, 2]


@pytest.mark.parametrize("module", ["few_shot", "sweep"])
def test_drivers_are_for_one_process(run, monkeypatch, tmp_path, module):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    argv = [tmp_path / "sweep.yaml"] if module == "sweep" else ["--config", tmp_path / "few_shot.yaml"]
    err = run(importlib.import_module(f"tools.{module}"), *argv, status=2).err
    assert err == f"error: tools/{module}.py runs many small trainings one after the other: start it without torchrun\n"
