import warnings

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from models import build_model_from_cfg
from models.act.point_bert import block_mask_by_ratio
from models.losses import barlow_twins_loss, nt_xent_loss
from utils import checkpoint
from utils.distributed import gather_batch
from utils.errors import ConfigError

DVAE = {"num_group": 8, "group_size": 8, "num_tokens": 16, "encoder_dims": 16, "tokens_dims": 16, "decoder_dims": 16}
STUDENT = {"embed_dim": 24, "depth": 2, "num_heads": 3, "cls_dim": 8}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def build(m=0.9, K=8, T=0.07, **student):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "model.dvae_config.ckpt is not given")
        return build_model_from_cfg({"NAME": "ACT_PointBERT", "m": m, "K": K, "T": T, "dvae_config": DVAE,
                                     "transformer_config": {**STUDENT, **student}})


POINTS = torch.rand(4, 64, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("losses", "names"), [
    ({}, {"dvae_loss", "cutmix_loss"}),
    ({"cutmix_loss": False}, {"dvae_loss"}),
    ({"moco_loss": True}, {"dvae_loss", "cutmix_loss", "moco_loss"}),
    ({"moco_loss": True, "dvae_loss": False, "cutmix_loss": False}, {"moco_loss"}),
])
def test_losses_are_those_switched_on(losses, names):
    model = build(**losses).train()
    out = model(POINTS)
    assert {name for name in out if name.endswith("_loss")} == names
    assert out["loss"].item() == pytest.approx(sum(out[name].item() for name in names), rel=1e-5)
    out["loss"].backward()
    touched = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert touched == {"transformer_q"}
    assert not model.dvae_tokenizer.training


def test_it_learns_the_codes():
    model = build(drop_path_rate=0.0, cutmix_loss=False).train()
    optimizer = torch.optim.AdamW(model.transformer_q.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        loss = model(POINTS)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_masks_are_blocks_of_a_share_between_the_two():
    center = torch.rand(300, 20, 3)
    mask = block_mask_by_ratio(center, (0.25, 0.45))
    counts = mask.sum(1)
    assert (counts.min(), counts.max()) == (5, 8)  # int(share × 20), the share below 0.45
    one, inside = center[0], mask[0]
    reach = [(one - seed).square().sum(-1) for seed in one]
    assert any(distance[inside].max() <= distance[~inside].min() for distance in reach)


def test_masked_patches_do_not_reach_the_encoder():
    model = build(mask_ratio=[0.5, 0.5], drop_path_rate=0.0).eval()
    neighborhood, center = torch.rand(2, 8, 8, 3), torch.rand(2, 8, 3)
    torch.manual_seed(3)
    _, logits, masked = model.transformer_q.predict(neighborhood, center, model.keys)
    changed = torch.where(masked[..., None, None], torch.rand_like(neighborhood), neighborhood)
    torch.manual_seed(3)
    assert model.transformer_q.predict(changed, center, model.keys)[1].equal(logits)
    torch.manual_seed(3)
    other = torch.where(masked[..., None, None], neighborhood, torch.rand_like(neighborhood))
    assert not model.transformer_q.predict(other, center, model.keys)[1].equal(logits)


def test_replaced_and_all_tokens_count():
    keys = {"mask_ratio": [0.25, 0.25], "drop_path_rate": 0.0}
    neighborhood, center = torch.rand(2, 8, 8, 3), torch.rand(2, 8, 3)
    counts = []
    for changes in ({}, {"replace_pob": 0.9}, {"return_all_tokens": True}):
        model = build(**keys, **changes)
        counts.append(int(model.transformer_q.predict(neighborhood, center, model.keys)[2].sum()))
    assert counts[0] == 4
    assert 4 < counts[1] <= 16
    assert counts[2] == 16


def test_the_queue_holds_the_newest_keys_and_the_key_encoder_follows():
    model = build(moco_loss=True, m=0.75, K=6).train()
    assert model.queue.norm(dim=0).tolist() == pytest.approx([1] * 6)
    before = model.transformer_k.norm.weight.clone()
    with torch.no_grad():
        model.transformer_q.norm.weight += 4
    model(POINTS)
    assert model.transformer_k.norm.weight.tolist() == pytest.approx((before + 1).tolist())
    assert model.queue_ptr.item() == 4
    first = model.queue[:, :4].clone()
    model(POINTS)
    assert model.queue_ptr.item() == 2
    assert torch.equal(model.queue[:, 2:4], first[:, 2:4])  # places 4, 5, 0 and 1 are new
    state = model.queue.clone()
    model.eval()(POINTS)
    assert torch.equal(model.queue, state)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_the_temperature_divides_the_similarities(temperature):
    model = build(T=temperature, moco_loss=True)
    query, key = torch.randn(4, 8), torch.nn.functional.normalize(torch.randn(4, 8), dim=-1)
    normed = torch.nn.functional.normalize(query, dim=-1)
    scores = torch.cat([(normed * key).sum(-1, keepdim=True), normed @ model.queue], 1) / temperature
    torch.testing.assert_close(model.contrast(query, key), (scores.logsumexp(1) - scores[:, 0]).mean())


def test_a_queue_shorter_than_a_step_is_refused():
    with pytest.raises(ConfigError, match="model.K is 3, but a step has 4 clouds"):
        build(K=3, moco_loss=True).train()(POINTS)


def test_cutmix_mixes_patches_centres_and_codes_alike(monkeypatch):
    model, seen = build().eval(), []
    patches, center = torch.rand(2, 8, 8, 3), torch.rand(2, 8, 3)
    codes = torch.arange(16).view(2, 8)
    predict = model.transformer_q.predict
    model.transformer_q.predict = lambda *given: seen.extend(given[:2]) or predict(*given)
    monkeypatch.setattr("models.act.point_bert.code_loss", lambda logits, codes, hidden: seen.append(codes) or 0)
    model.mixed_loss(patches, center, codes, None)
    mixed, mixed_center, mixed_codes = seen
    other = (mixed_codes != codes).nonzero().tolist()
    assert 0 < len(other) < 16
    for cloud in range(2):
        for place in range(8):
            source = 1 - cloud if [cloud, place] in other else cloud
            assert mixed_codes[cloud, place] == codes[source, place]
            assert mixed[cloud, place].equal(patches[source, place])
            assert mixed_center[cloud, place].equal(center[source, place])


def test_its_student_is_fine_tuned(tmp_path):
    model = build(moco_loss=True)
    path = tmp_path / "c.pth"
    checkpoint.save({"base_model": model.state_dict()}, path)
    classifier = build_model_from_cfg({"NAME": "PointTransformer", "embed_dim": 24, "depth": 2, "num_heads": 3,
                                       "encoder_dims": 16, "cls_dim": 5, "group_size": 8, "num_group": 8})
    report = checkpoint.load_model(classifier, checkpoint.read_weights(path), path)
    assert "16 missing" in report
    torch.testing.assert_close(classifier.eval().forward_features(POINTS), model.eval().forward_features(POINTS))


@pytest.mark.parametrize(("keys", "message"), [
    ({"mask_ratio": 1.5}, "mask_ratio is 1.5; it must be a number between 0 and 1, or a list of 2 .*: the lowest and"),
    ({"mask_ratio": [0.5, 0.2]}, "give the lowest and the highest share"),
    ({"dvae_loss": False, "cutmix_loss": False}, "are all off"),
    ({"mask_ration": 1}, r"unknown key 'model.transformer_config.mask_ration' \(did you mean 'mask_ratio'\?\)"),
])
def test_wrong_keys(keys, message):
    with pytest.raises(ConfigError, match=message):
        build(**keys)


def gather_in_process(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    assert gather_batch(torch.full((2, 3), float(rank)))[:, 0].tolist() == [0, 0, 1, 1]
    dist.destroy_process_group()


@pytest.mark.slow
def test_keys_are_gathered_across_processes(tmp_path):
    mp.spawn(gather_in_process, (tmp_path,), nprocs=2)
    assert gather_batch(POINTS) is POINTS


def test_nt_xent_by_hand():
    target = torch.eye(2).unsqueeze(0)
    assert nt_xent_loss(target, target, 1.0).item() == pytest.approx(torch.tensor([1.0, 0]).log_softmax(0)[0].neg())
    assert nt_xent_loss(target.flip(1), target) > nt_xent_loss(target, target) + 5


def test_barlow_twins_by_hand():
    tokens = torch.tensor([[[1.0, 1], [1, -1], [-1, 1], [-1, -1]]])  # uncorrelated channels of variance 4/3
    assert barlow_twins_loss(tokens, tokens).item() == pytest.approx((3 / 4 - 1) ** 2, rel=1e-4)
    turned = tokens.flip(-1)  # each channel is the other's
    assert barlow_twins_loss(turned, tokens).item() == pytest.approx(1 + 0.005 * (3 / 4) ** 2, rel=1e-4)
