"""Segmentation of rooms (S3DIS) and of objects into parts (ShapeNetPart): training and validation."""
import torch

from datasets.s3dis import S3DIS
from datasets.shapenet_part import PARTS, ShapeNetPart
from datasets.transforms import build_transform
from models import build_model_from_cfg
from models.pretrained import notes_in
from tools.engine import trainer
from tools.engine.loaders import build_dataset, build_loader
from tools.engine.metrics import confusion, part_ious, segmentation_scores
from tools.engine.run import mixed_seed, open_run, summarize
from tools.engine.task import Task
from tools.tasks import voting
from utils import checkpoint, distributed
from utils.config import plain
from utils.errors import ConfigError
from utils.tables import align


class Segmentation(Task):
    """What both tasks share: model, data and augmentation."""

    def __init__(self, run):
        self.run = run
        config, args = run.config, run.args
        self.model = build_model_from_cfg(config.model)
        if config.model.NAME != "PointSegmenter":
            raise ConfigError(f"{args.config}: model.NAME is {config.model.NAME}; segmentation needs a PointSegmenter")
        path, self.given_notes = args.ckpts or args.start_ckpts, {}
        if path:
            content = checkpoint.read(path)
            self.given_notes = notes_in(content)
            weights = checkpoint.weights_in(content, path)
            run.log.info(checkpoint.load_model(self.model, weights, path, complete=args.test))
        if args.optimizer_part == "only_new":
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(name.startswith(self.model.optional_weights))
        self.model.to(run.device)
        self.datasets = {split: build_dataset(run, split) for split in (["val"] if args.test else
                                                                              ["train", "val"])}
        if self.datasets["val"] is None:
            raise ConfigError(f"{args.config}: key 'dataset.val' is missing; segmentation needs it")
        for data in self.datasets.values():
            self.check(data)
        if not args.test:
            self.loader = build_loader(run, self.datasets["train"], config.total_bs, train=True)
        self.val_loader = build_loader(run, self.datasets["val"], config.total_bs)
        self.augment = build_transform(config.train_transforms)
        self.vote_augment = build_transform(config.test_transforms)
        self.notes = {"model": plain(config.model), "npoints": self.datasets["val"].npoints,
                      "class_names": list(self.datasets["val"].class_names)}

    def check(self, data):
        """Raise ConfigError unless the data set is of this task and fits the model."""
        config, path = self.run.config.model, self.run.args.config
        if type(data) is not self.data_class:
            raise ConfigError(f"{path}: the data set is {type(data).__name__}, but this command is for "
                              f"{self.data_class.__name__}")
        for key, wanted in self.counts.items():
            if config[key] != wanted:
                raise ConfigError(f"{path}: model.{key} is {config[key]}, but {type(data).__name__} needs {wanted}")

    @property
    def times(self):
        """Return how many passes or views a vote has."""
        return self.run.config.vote.times


class RoomSegmentation(Segmentation):
    """Semantic segmentation of S3DIS, with a class-weighted loss; the best epoch is that of the highest mIoU."""

    metrics = {"mIoU": "ckpt-best.pth"}
    data_class, counts = S3DIS, {"num_classes": 13, "num_categories": 0}

    def __init__(self, run):
        super().__init__(run)
        self.notes["test_area"] = self.datasets["val"].test_area

    def losses(self, model, batch, iteration):
        points, label = batch
        weight = self.datasets["train"].class_weights.to(points.device)
        out = model(self.augment(points), label, weight=weight)
        return {"loss": out["loss"], "acc": out["acc"]}

    def evaluate(self, epoch, best):
        """Return mIoU, OA and mAcc in percent over the blocks of the validation rooms; log each class's IoU."""
        names, counts = self.datasets["val"].class_names, []
        for points, label in self.val_loader:
            prediction = self.model(points.to(self.run.device))["log_prob"].argmax(-1).cpu()
            counts.append(confusion(prediction, label, len(names)))
        counts = sum(distributed.gather_list(counts))
        scores, ious = segmentation_scores(counts)
        self.run.log.info("%s", iou_table(names, ious, counts.sum(1)))
        return scores


class PartSegmentation(Segmentation):
    """Part segmentation of ShapeNetPart; the best epoch is that of the highest instance mIoU."""

    metrics = {"ins-mIoU": "ckpt-best.pth"}
    data_class, counts = ShapeNetPart, {"num_classes": 50, "num_categories": 16}

    def losses(self, model, batch, iteration):
        points, category, label = batch
        out = model(self.augment(points), label, category)
        return {"loss": out["loss"], "acc": out["acc"]}

    def evaluate(self, epoch, best, times=0):
        """Return instance and class mIoU and accuracy in percent, and log them by category.

        With ``times`` the log-probabilities of so many augmented views are averaged, beside the plain one.
        """
        data = self.datasets["val"]
        parts, ious, right = [], [[] for _ in PARTS], []
        for number, (points, category, label) in enumerate(self.val_loader, self.val_loader.batch_sampler.first):
            with voting.isolated_random(mixed_seed(self.run.args.seed, number), self.run.device):
                parts.append((self.predict(points, category, times), category, label))  # B N
        for prediction, category, label in distributed.gather_list(parts):
            right.append((prediction == label).float().mean(1))
            for number, own_parts in enumerate(PARTS.values()):
                own = category == number
                if own.any():
                    ious[number].append(part_ious(prediction[own], label[own], own_parts))
        means = {name: torch.cat(values) for name, values in zip(data.class_names, ious, strict=True) if values}
        rows = [["Category", "#", "mIoU"], *([name, str(len(values)), f"{100 * values.mean():.2f}"]
                                             for name, values in means.items())]
        self.run.log.info("%s", align(rows))
        return {"ins-mIoU": 100 * torch.cat(list(means.values())).mean().item(),
                "cls-mIoU": 100 * torch.stack([values.mean() for values in means.values()]).mean().item(),
                "OA": 100 * torch.cat(right).mean().item()}

    def predict(self, points, category, times=0):
        """Return the parts (B, N) that each point most likely belongs to, among those of its object's category."""
        device = self.run.device
        points, number = points.to(device), category.to(device)
        total = self.model(points, category=number)["log_prob"]
        for _ in range(times):
            total = total + self.model(self.vote_augment(points), category=number)["log_prob"]
        allowed = torch.zeros(len(PARTS), total.shape[-1], dtype=torch.bool)
        for row, parts in zip(allowed, PARTS.values(), strict=True):
            row[list(parts)] = True
        return total.masked_fill(~allowed.to(device)[number].unsqueeze(1), -torch.inf).argmax(-1).cpu()


def iou_table(names, ious, counts):
    """Return a table of each class's IoU in percent and number of points."""
    rows = [["Class", "points", "IoU"]]
    rows += [[name, str(int(count)), "–" if iou.isnan() else f"{iou:.2f}"]
             for name, iou, count in zip(names, ious, counts, strict=True)]
    return align(rows)


def train(args, task_class):
    """Train ``task_class`` as ``args`` say; returns the trainer's Progress."""
    run = open_run(args)
    task = task_class(run)
    summarize(run, task.model, task.datasets)
    progress = trainer.fit(run, task)
    name = next(iter(task.metrics))
    for title, metrics in (("Last", progress.metrics), ("Best", progress.best.get(name, {}))):
        run.log.info("%s  %s", title, "  ".join(f"{key} {value:.2f}" for key, value in metrics.items()))
    run.close()
    return progress
