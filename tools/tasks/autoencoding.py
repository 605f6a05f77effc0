"""Stage I: training, validating and drawing a discrete 3D autoencoder."""
import numpy as np
import torch

from models import build_model_from_cfg
from models.act.codebook import codebook_perplexity
from models.act.prompted_dvae import without_weights
from tools.engine import trainer
from tools.engine.loaders import build_dataset, build_loader
from tools.engine.metrics import CategoryTable, reconstruction_metrics
from tools.engine.optim import cosine_ramp
from tools.engine.run import open_run, summarize
from tools.engine.task import Task
from utils import distributed
from utils.checkpoint import load_model, read_weights
from utils.config import plain
from utils.errors import ConfigError
from utils.plots.clouds import reconstruction_picture, write_ply

# the categories that the published --test shows
DRAWN_CATEGORIES = ("02691156", "02818832", "04379243", "04099429", "03948459", "03790512", "03642806", "03467517",
                    "03261776", "03001627", "02958343", "03759954")
PICTURES_A_VALIDATION = 3
SPREAD_OVER = 256  # clouds that initialise the codes
LEAST_CARRIED = 0.01  # of the reconstruction loss with codes exchanged, by the codes


class Autoencoding(Task):
    """The task of stage I."""

    warned = False

    def __init__(self, run):
        self.run = run
        config = run.config
        self.metrics = {config.consider_metric: "ckpt-best.pth"}
        self.notes = {"model": plain(config.model)}
        path, section = run.args.ckpts or run.args.start_ckpts, {**config.model}
        if (path or run.args.resume) and "visual_embed_type" in section:  # the file holds these weights too
            section |= without_weights(section)
        self.model = build_model_from_cfg(section)
        if path:
            run.log.info(load_model(self.model, read_weights(path), path))
        self.model.to(run.device)
        self.datasets = {split: build_dataset(run, split) for split in ("train", "val", "test")}
        if self.datasets["val"] is None:
            raise ConfigError(f"{run.args.config}: key 'dataset.val' is missing; stage I needs it")
        for key in ("temp", "kldweight"):
            if key not in config:
                raise ConfigError(f"{run.args.config}: key '{key}' is missing; stage I needs it")
        if config.code_spread and not (path or run.args.resume):
            self.spread_codes(config.code_spread)
        if not run.args.testing:
            self.loader = build_loader(run, self.datasets["train"], config.total_bs, train=True)
        self.val_loader = build_loader(run, self.datasets["val"], config.total_bs)

    def spread_codes(self, scale):
        """Initialise the codes from training clouds, spread evenly over the data set; see DiscreteVAE."""
        data = self.datasets["train"]
        chosen = np.linspace(0, len(data) - 1, min(len(data), SPREAD_OVER)).astype(int)
        points = torch.stack([data[index][0] for index in chosen.tolist()])
        self.model.train().spread_codes(points.to(self.run.device), scale)

    def losses(self, model, batch, iteration):
        points, _ = batch
        temperature = cosine_ramp(self.run.config.temp, iteration)
        kld_weight = cosine_ramp(self.run.config.kldweight, iteration)
        return {**model(points, temperature, kld_weight), "temperature": temperature, "kld_weight": kld_weight}

    def evaluate(self, epoch, best):
        """Return the mean over categories of the reconstruction metrics of whole clouds, codes arg-max.

        The table by category goes to the log, the first clouds' pictures to TensorBoard. ``CDL1-coarse`` is that of
        the coarse clouds; ``perplexity`` tells how many codes are in use; ``recon`` × 1000 is the reconstruction loss
        of patches, ``recon-shuffled`` that with codes exchanged between patches: what codes carry is the difference.
        """
        data = self.datasets["val"]
        table, parts, shown = CategoryTable(data.class_names, getattr(data, "taxonomies", None)), [], 0
        losses = []
        for points, label in self.val_loader:
            points = points.to(self.run.device)
            out = self.model(points)
            coarse = reconstruction_metrics(out["whole_coarse"].float(), points)
            values = {**reconstruction_metrics(out["whole_fine"].float(), points), "CDL1-coarse": coarse["CDL1"]}
            parts.append((label, {name: value.cpu() for name, value in values.items()}, out["codes"].flatten().cpu()))
            losses.append((len(points), out["recon_loss"].item(), self.model.shuffled_loss(points).item()))
            for index in range(min(PICTURES_A_VALIDATION - shown, len(points)) if distributed.is_main() else 0):
                image = reconstruction_picture(None, as_clouds(points, out, index), data.class_names[label[index]])
                self.run.records.image(f"reconstruction/{shown}", image, epoch)
                shown += 1
        parts = distributed.gather_list(parts)
        for label, values, _ in parts:
            table.add(label, values)
        codes = torch.cat([codes for _, _, codes in parts])
        count, recon, shuffled = np.array(distributed.gather_list(losses)).T
        self.run.log.info("%s", table.render())
        metrics = {**table.overall(), "perplexity": codebook_perplexity(codes, self.model.num_tokens).item(),
                   "recon": 1000 * np.average(recon, weights=count),
                   "recon-shuffled": 1000 * np.average(shuffled, weights=count)}
        if epoch >= 0:
            self.warn_of_collapse(metrics)
        return metrics

    def warn_of_collapse(self, metrics):
        """Warn once where the codes carry next to nothing of the reconstruction."""
        carried = 1 - metrics["recon"] / metrics["recon-shuffled"]
        if carried < LEAST_CARRIED and not self.warned:
            self.warned = True
            self.run.log.warning(
                "The codes carry %.1f %% of the reconstruction (perplexity %.1f): a student of this autoencoder has "
                "little to learn. Keys that help: temp and kldweight scaled to the length of the run, code_spread, "
                "model.code_noise; see docs/pretraining.md", 100 * carried, metrics["perplexity"])

    def draw(self):
        """Write a picture and the clouds of the first object of every shown category; returns the folder."""
        data = self.datasets["test"] or self.datasets["val"]
        taxonomies = getattr(data, "taxonomies", data.class_names)
        chosen = [label for label, name in enumerate(taxonomies) if name in DRAWN_CATEGORIES] or range(len(taxonomies))
        labels = np.asarray(data.labels)
        folder = self.run.folder / "reconstructions"
        self.model.eval()
        for label in chosen:
            if not (labels == label).any():
                continue
            index = int(np.argmax(labels == label))
            points = data[index][0].unsqueeze(0).to(self.run.device)
            with torch.inference_mode():
                clouds = as_clouds(points, self.model(points), 0)
            name = f"{data.class_names[label]}_{index}".replace(" ", "-").replace("/", "-")
            (folder / name).mkdir(parents=True, exist_ok=True)
            reconstruction_picture(folder / f"{name}.png", clouds, data.class_names[label])
            for part, cloud in clouds.items():
                write_ply(folder / name / f"{part}.ply", cloud)
            self.run.log.info("%s", folder / f"{name}.png")
        return folder


def as_clouds(points, out, index):
    """Return the input, coarse and fine cloud of one object as arrays (N, 3)."""
    clouds = {"input": points, "coarse": out["whole_coarse"], "fine": out["whole_fine"]}
    return {name: cloud[index].float().cpu().numpy() for name, cloud in clouds.items()}


def run(args):
    """Train, validate (``--val``) or draw (``--test``) as ``args`` say."""
    run = open_run(args)
    task = Autoencoding(run)
    summarize(run, task.model, {split: data for split, data in task.datasets.items() if data is not None})
    if args.test:
        if distributed.is_main():
            task.draw()
    elif args.val:
        task.model.eval()
        with torch.inference_mode(), run.autocast():
            metrics = task.evaluate(0, {})
        run.log.info("Validation  %s", "  ".join(f"{name} {value:.5g}" for name, value in metrics.items()))
    else:
        trainer.fit(run, task)
    run.close()
