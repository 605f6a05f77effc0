"""Fine-tuning and training from scratch for classification."""
import torch

from datasets.transforms import build_transform, subsample
from models import build_model_from_cfg
from tools import trainer
from tools.builder import build_dataset, build_loader
from tools.experiment import open_experiment, summarize
from utils.checkpoint import load_model, read_weights
from utils.errors import ConfigError
from utils.metrics import mean_class_accuracy, overall_accuracy


class Classification:
    """The task of fine-tuning: cross-entropy, validated by overall and mean class accuracy."""

    metric = "OA"

    def __init__(self, experiment):
        self.experiment = experiment
        config = experiment.config
        self.model = build_model_from_cfg(config.model)
        path = experiment.args.ckpts or experiment.args.start_ckpts
        if path:
            experiment.log.info(load_model(self.model, read_weights(path), path))
        self.model.to(experiment.device)
        self.datasets = {split: build_dataset(experiment, split) for split in ("train", "val")}
        if self.datasets["val"] is None:
            raise ConfigError(f"{experiment.args.config}: key 'dataset.val' is missing; fine-tuning needs it")
        classes = len(self.datasets["train"].class_names)
        if config.model.cls_dim < classes:
            raise ConfigError(f"{experiment.args.config}: model.cls_dim is {config.model.cls_dim}, but the training "
                              f"set has {classes} classes")
        self.loader = build_loader(experiment, self.datasets["train"], config.total_bs, train=True)
        self.val_loader = build_loader(experiment, self.datasets["val"], 2 * config.total_bs)
        self.augment = build_transform(["Rotate"])

    def losses(self, batch, iteration):
        points, label = batch
        points = self.augment(subsample(points, self.npoints, random=True))
        return self.model(points, label)

    @property
    def npoints(self):
        return self.experiment.config.get("npoints", self.datasets["train"].npoints)

    def evaluate(self, epoch):
        """Return overall and mean class accuracy in percent on the validation set."""
        predictions, labels = [], []
        for points, label in self.val_loader:
            points = subsample(points.to(self.experiment.device), self.npoints, random=False)
            predictions.append(self.model(points)["logits"].argmax(-1).cpu())
            labels.append(label)
        prediction, label = torch.cat(predictions), torch.cat(labels)
        classes = len(self.datasets["val"].class_names)
        return {"OA": overall_accuracy(prediction, label), "mAcc": mean_class_accuracy(prediction, label, classes)}


def run(args):
    """Train a classifier as ``args`` say."""
    experiment = open_experiment(args)
    task = Classification(experiment)
    summarize(experiment, task.model, task.datasets)
    progress = trainer.fit(experiment, task)
    experiment.log.info("Last  OA %.2f  mAcc %.2f;  best  OA %.2f  mAcc %.2f", progress.metrics["OA"],
                        progress.metrics["mAcc"], progress.best["OA"], progress.best["mAcc"])
    experiment.close()
