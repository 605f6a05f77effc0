"""Pictures for papers: ``python tools/visualize.py {reconstructions,features,codes,targets,attention,masking} …``.

reconstructions  clouds and what several autoencoders make of them, side by side
features         t-SNE of the test clouds' features, a panel a checkpoint: before and after fine-tuning, say
codes            how often an autoencoder uses each of its codes
targets          what the targets of stage II consist of, and targets and the student's features on clouds
attention        how much a student's class token attends to each patch
masking          what I2P-MAE's image model sees of clouds and attends to, what is masked, and what is made of it
"""
import argparse
import pathlib
import sys
import warnings

import numpy as np
import torch
import torch.nn.functional as F

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from datasets import build_dataset_from_cfg  # noqa: E402 - the script's folder is on the path, the project's is not
from datasets.transforms import furthest_subset  # noqa: E402
from extensions.ops import knn  # noqa: E402
from models import DiscreteVAE, build_model_from_cfg  # noqa: E402
from models.act.codebook import codebook_perplexity  # noqa: E402
from models.act.prompted_dvae import without_weights  # noqa: E402
from models.i2p_mae.encoder import group_scales, inherit_masks  # noqa: E402
from models.i2p_mae.projection import VIEWS, Projection  # noqa: E402
from models.layers.patches import gather, group  # noqa: E402
from models.pretrained import build_pretrained  # noqa: E402
from tools.engine.run import choose_device, seed_everything  # noqa: E402
from tools.tasks.target_report import Patches, asked_for, decompose, patches_of, principal_colours  # noqa: E402
from utils import checkpoint  # noqa: E402
from utils.command import run_command  # noqa: E402
from utils.config import load_config  # noqa: E402
from utils.errors import ConfigError  # noqa: E402
from utils.files import check_writable  # noqa: E402
from utils.parser import ArgumentParser, positive  # noqa: E402
from utils.plots import paper  # noqa: E402
from utils.tables import align  # noqa: E402

BATCH = 32
SHOWN_CLOUDS = 4


class Clouds:
    """The test clouds of a config, reduced to its ``npoints``."""

    def __init__(self, config, path, limit, device):
        section = config.dataset.get("test") or config.dataset.get("val")
        if section is None:
            raise ConfigError(f"{path}: neither dataset.test nor dataset.val is there; pictures are of test clouds")
        self.data = build_dataset_from_cfg(section._base_, section.get("others", {}), "dataset.test")
        self.npoints, self.device = config.get("npoints") or self.data.npoints, device
        self.index = np.random.default_rng(0).permutation(len(self.data))[:limit]
        self.labels, self.names = np.asarray(self.data.labels)[self.index], self.data.class_names

    def batches(self):
        """Yield points (B, npoints, 3)."""
        for start in range(0, len(self.index), BATCH):
            points = torch.stack([self.data[i][0] for i in self.index[start:start + BATCH]]).to(self.device)
            yield furthest_subset(points[..., :3], self.npoints)


def load_autoencoder(config, path, device):
    """Return the autoencoder of ``config`` with the weights in ``path``, in evaluation mode."""
    section = {**config.model}
    if "visual_embed_type" in section:  # the checkpoint holds these weights too
        section |= without_weights(section)
    weights, model = checkpoint.read_weights(path), build_model_from_cfg(section)
    if not isinstance(model, DiscreteVAE):
        raise ConfigError(f"checkpoint {path} is to be of a {config.model.NAME}, which is no autoencoder of stage I")
    checkpoint.load_model(model, weights, path, complete=True)
    return model.to(device).eval()


def load_student(config, path, device):
    """Return the encoder of ``config`` with the weights in ``path``; ``none`` leaves it untrained."""
    content = None if path == "none" else checkpoint.read(path)
    return build_pretrained(dict(config.model), content, path).to(device)


def reconstructions(args, device):
    """Rows of objects: the input, then each autoencoder's reconstruction."""
    first = load_config(args.config[0], args.set)
    clouds = Clouds(first, args.config[0], args.number, device)
    points = next(clouds.batches())
    columns = {"input": points}
    for config, path, name in zip(args.config, args.ckpts, args.names, strict=True):
        columns[name] = load_autoencoder(load_config(config, args.set), path, device)(points)["whole_fine"]
    titles = [clouds.names[label] for label in clouds.labels]
    rows = [{name: cloud[row].float().cpu().numpy() for name, cloud in columns.items()} for row in range(len(points))]
    paper.panel_grid(args.output, titles, rows)
    if args.html:
        paper.clouds_html(args.html, titles, rows)


def features(args, device):
    """A t-SNE panel a checkpoint."""
    from sklearn.manifold import TSNE

    panels = {}
    for config, path, name in zip(args.config, args.ckpts, args.names, strict=True):
        config_read = load_config(config, args.set)
        clouds = Clouds(config_read, config, args.number, device)
        model = load_student(config_read, path, device)
        found = torch.cat([model.forward_features(points).float().cpu() for points in clouds.batches()]).numpy()
        scaled = (found - found.mean(0)) / (found.std(0) + 1e-6)
        perplexity = min(30, max(2, (len(scaled) - 1) / 3))
        panels[name] = TSNE(perplexity=perplexity, random_state=args.seed, init="pca").fit_transform(scaled)
    paper.scatter_panels(args.output, panels, clouds.labels, clouds.names)
    if args.html:
        paper.scatter_html(args.html, panels, clouds.labels, clouds.names)


def codes(args, device):
    """A curve an autoencoder: the share of each code among the test patches, the most frequent first."""
    curves = {}
    for config, path, name in zip(args.config, args.ckpts, args.names, strict=True):
        config_read = load_config(config, args.set)
        model = load_autoencoder(config_read, path, device)
        clouds = Clouds(config_read, config, args.number, device)
        found = torch.cat([model(points)["codes"].flatten().cpu() for points in clouds.batches()])
        share = torch.bincount(found, minlength=model.num_tokens).double() / len(found)
        perplexity = codebook_perplexity(found, model.num_tokens).item()
        ranked = share.sort(descending=True).values.numpy()
        curves[f"{name}: perplexity {perplexity:.1f} of {model.num_tokens}"] = ranked
        print(f"{name}: {(share > 0).sum()} of {model.num_tokens} codes in use, perplexity {perplexity:.2f}")
    paper.rank_curves(args.output, curves)


def targets(args, device):
    """Bars of what each target consists of; clouds in the colours of the target and of the student's features."""
    measured, rows, titles = {}, None, None
    for config, path, name in zip(args.config, args.ckpts, args.names, strict=True):
        config_read = load_config(config, args.set)
        model = load_teacher(config_read, path, device)
        clouds = Clouds(config_read, config, args.number, device)
        patches = Patches.joined([patches_of(model, points) for points in clouds.batches()])
        points, prefix = next(clouds.batches())[:SHOWN_CLOUDS], f"{name}: " if len(args.ckpts) > 1 else ""
        for feature, values in patches.features.items():
            measured[prefix + feature] = decompose(values, patches.center)
        titles = [clouds.names[label] for label in clouds.labels[:SHOWN_CLOUDS]]
        rows = rows or [{"input": cloud} for cloud in points.cpu().numpy()]
        for feature in (asked_for(model), *(["student"] if "student" in patches.features else [])):
            colours = principal_colours(patches.features[feature])[:SHOWN_CLOUDS]
            nearest = knn(patches.center[:SHOWN_CLOUDS], points, 1)[1].squeeze(-1)  # B N
            for row, cloud, values in zip(rows, points, gather(colours, nearest), strict=True):
                row[prefix + feature] = torch.cat([cloud, values], 1).cpu().numpy()
    bars = {what: {name: values[what] for name, values in measured.items()} for what in next(iter(measured.values()))}
    print(align([["", *bars], *([name, *(f"{value:.4g}" for value in values.values())]
                                for name, values in measured.items())]))
    paper.bars_and_rows(args.output, bars, titles, rows)
    if args.html:
        paper.clouds_html(args.html, titles, rows)


def load_teacher(config, path, device):
    """Return the model of a config of stage I or II with the weights in ``path``.

    ``none`` leaves a student untrained; its teacher is then that of ``dvae_config.ckpt``.
    """
    if config.model.NAME != "ACT_PointDistillation":
        return load_autoencoder(config, path, device)
    section = {**config.model}
    if path != "none":  # the checkpoint holds the teacher's weights too
        section["dvae_config"] = {**section["dvae_config"], **without_weights(section["dvae_config"])}
    weights = None if path == "none" else checkpoint.read_weights(path)
    if weights is not None and any(key.startswith("dvae_tokenizer.") for key in weights):
        section["dvae_config"].pop("ckpt", None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "model.dvae_config.ckpt is not given")
        model = build_model_from_cfg(section)
    if weights is not None:
        checkpoint.load_model(model, weights, path)
    return model.to(device).eval()


def attention(args, device):
    """Rows of objects, a column a student: every point in the colour of the nearest patch's attention."""
    rows, titles = None, None
    for config, path, name in zip(args.config, args.ckpts, args.names, strict=True):
        config_read = load_config(config, args.set)
        model = load_student(config_read, path, device)
        if not hasattr(model, "class_attention"):
            raise ConfigError(f"a {config_read.model.NAME} has no class token whose attention could be drawn")
        clouds = Clouds(config_read, config, args.number, device)
        points = next(clouds.batches())
        neighborhood, center = group(points, model.num_group, model.group_size)
        value = model.class_attention(neighborhood, center).float()  # B G
        nearest = knn(center, points, 1)[1].squeeze(-1)  # B N
        value = value.gather(1, nearest) / value.amax(1, keepdim=True)
        titles = [clouds.names[label] for label in clouds.labels]
        rows = rows or [{} for _ in range(len(points))]
        for row, cloud, values in zip(rows, points.cpu().numpy(), value.cpu().numpy(), strict=True):
            row[name] = np.column_stack([cloud, values])
    paper.panel_grid(args.output, titles, rows)
    if args.html:
        paper.clouds_html(args.html, titles, rows)


def masking(args, device):
    """Rows of objects: depth images, saliency, tokens and reconstruction of an I2P_MAE."""
    if len(args.ckpts) > 1:
        raise ConfigError("masking is a picture of one checkpoint; draw one for each")
    path, config = args.ckpts[0], load_config(args.config[0], args.set)
    if config.model.NAME != "I2P_MAE":
        raise ConfigError(f"{args.config[0]} is of the model {config.model.NAME}; masking is drawn of an I2P_MAE")
    model = build_model_from_cfg({**config.model})
    if path != "none":
        checkpoint.load_model(model, checkpoint.read_weights(path), path, complete=True)
    model = model.to(device).eval()
    clouds = Clouds(config, args.config[0], args.number, device)
    points = next(clouds.batches())
    titles, rows = [clouds.names[label] for label in clouds.labels], [masking_panels(model, cloud) for cloud in points]
    paper.panel_grid(args.output, titles, rows)
    if args.html:
        paper.clouds_html(args.html, titles, rows)


def masking_panels(model, points):
    """Return what an I2P_MAE makes of a cloud (N, 3): a dict of captions → arrays, see ``paper.panel_grid``."""
    batch = points[None]
    out = model(batch)
    _, centers, children = group_scales(batch, model.num_groups, model.group_sizes)
    masks = inherit_masks(out["mask"], children, model.num_groups, model.first_token_visible)
    finer, center, masked = centers[model.target - 1], centers[model.target], masks[model.target]
    visible = (gather(finer, children[model.target - 1]))[~masked].flatten(0, 1)
    predicted = (out["reconstruction"] + center[masked].unsqueeze(1)).flatten(0, 1)

    panels = {"input": points}
    for image, (row, column, depth) in zip(Projection(batch).shades(), VIEWS, strict=True):
        panels[f"{'xyz'[depth]} over {'xyz'[row]}, {'xyz'[column]}"] = image
    if "saliency" in out:
        value = out["saliency"] - out["saliency"].amin()
        value = value / value.amax().clamp_min(torch.finfo(value.dtype).tiny)
        panels["saliency"] = coloured(points, centers[-1][0], value[0])
    panels["visible (yellow), masked"] = coloured(points, center[0], 1 - masked[0].float())
    panels["visible, predicted (blue)"] = torch.cat([F.pad(visible, (0, 1), value=1),
                                                     F.pad(predicted, (0, 1), value=0.3)])
    return {caption: panel.float().cpu().numpy() for caption, panel in panels.items()}


def coloured(points, center, values):
    """Return points (N, 3) with the value of the nearest of centres (G, 3) for a fourth column; ``values`` (G)."""
    nearest = knn(center[None], points[None], 1)[1].flatten()
    return torch.cat([points, values[nearest].unsqueeze(1)], 1)


PICTURES = {"reconstructions": (reconstructions, 4), "features": (features, 1000), "codes": (codes, 1000),
            "targets": (targets, 300), "attention": (attention, 4), "masking": (masking, 3)}


def parse(argv=None):
    parser = ArgumentParser(description="Draw pictures of trained models.",
                                     formatter_class=argparse.RawDescriptionHelpFormatter, epilog=__doc__)
    add = parser.add_argument
    add("picture", choices=PICTURES)
    add("--config", nargs="+", required=True, metavar="FILE", help="a config for each checkpoint, or one for all")
    add("--ckpts", nargs="+", required=True, metavar="FILE", help="checkpoints (none: an untrained encoder)")
    add("--names", nargs="+", metavar="NAME", help="what to call them (default: their experiments' names)")
    add("--output", required=True, metavar="FILE", help="the PNG file to write, at 300 dots an inch")
    add("--html", metavar="FILE", help="also write an interactive page (needs plotly)")
    add("--number", type=positive, metavar="N", help="test clouds to use")
    add("--seed", type=int, default=0, metavar="N")
    add("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="override config values")
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1 …")
    args = parser.parse_args(argv)
    if len(args.config) == 1:
        args.config *= len(args.ckpts)
    args.names = args.names or [name_of(path) for path in args.ckpts]
    if not len(args.config) == len(args.ckpts) == len(args.names) == len(set(args.names)):
        raise ConfigError(f"there are {len(args.ckpts)} --ckpts, {len(args.config)} --config and "
                          f"{len(set(args.names))} different --names: give one of each for every column")
    args.number = args.number or PICTURES[args.picture][1]
    if args.picture in ("reconstructions", "attention", "masking") and args.number > BATCH:
        raise ConfigError(f"--number {args.number}: a picture of clouds has room for {BATCH} at most")
    if args.picture == "codes" and args.html:
        raise ConfigError("--html is for reconstructions, features, attention and masking")
    return args


def name_of(path):
    """Return what to call a checkpoint: the name of its experiment."""
    return "untrained" if path == "none" else pathlib.Path(path).resolve().parent.name


def main(argv=None):
    args = parse(argv)
    for path in filter(None, (args.output, args.html)):
        check_writable(path)
    device = choose_device(args.device)
    seed_everything(args.seed, deterministic=False)
    with torch.inference_mode():
        PICTURES[args.picture][0](args, device)
    print(f"Written to {args.output}" + (f" and {args.html}" if args.html else ""))


if __name__ == "__main__":
    run_command(main)
