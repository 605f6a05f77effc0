"""Fine-tuning and training from scratch for classification, and testing with votes."""
import statistics

import torch
from tqdm import tqdm

from datasets import DATASETS
from datasets.transforms import build_transform, subsample
from models.build import MODELS, build_model_from_cfg
from models.pretrained import notes_in
from tools.engine import trainer
from tools.engine.loaders import build_dataset, build_loader
from tools.engine.run import open_run, summarize
from tools.engine.task import Task
from tools.tasks import voting
from utils import checkpoint, distributed
from utils.config import plain
from utils.errors import ConfigError


class Classification(Task):
    """The task of fine-tuning: cross-entropy, validated by overall and mean class accuracy."""

    metrics = {"OA": "ckpt-best.pth", "OA-vote": "ckpt-best_vote.pth"}

    def __init__(self, run):
        self.run = run
        config, args = run.config, run.args
        if not MODELS.takes(config.model.NAME, "cls_dim"):
            raise ConfigError(f"{args.config}: a {config.model.NAME} does not classify; give a config of fine-tuning")
        names = self.class_folders()
        if names:
            config.model.cls_dim = len(names)
            run.write_config()
        self.model = build_model_from_cfg(config.model)
        path = args.ckpts or args.start_ckpts
        if path:
            content = checkpoint.read(path)
            if args.test and names:
                check_classes(names, notes_in(content).get("class_names"), path)
            weights = checkpoint.weights_in(content, path)
            run.log.info(checkpoint.load_model(self.model, weights, path, complete=args.test))
        self.model.to(run.device)
        self.datasets = {split: build_dataset(run, split) for split in self.splits()}
        evaluated = list(self.datasets.values())[-1]
        classes = len(evaluated.class_names)
        if self.model.cls_dim < classes:
            raise ConfigError(f"{args.config}: model.cls_dim is {self.model.cls_dim}, but the data has {classes} "
                              f"classes")
        self.npoints = config.npoints or evaluated.npoints
        if not args.test and config.total_bs == 1:
            raise ConfigError(f"{args.config}: total_bs is 1, but batch norm needs at least two clouds a step")
        if not args.test:
            self.loader = build_loader(run, self.datasets["train"], config.total_bs, train=True)
        self.val_loader = build_loader(run, evaluated, 2 * config.total_bs)
        self.augment = build_transform(config.train_transforms)
        self.vote_augment = build_transform(config.test_transforms)
        self.notes = {"model": plain(config.model), "npoints": self.npoints, "class_names": list(evaluated.class_names),
                      "up": getattr(evaluated, "up", "y")}

    def class_folders(self):
        """Return the class names where the data's folders decide them, else None; warn where ``cls_dim`` differs.

        Raises ConfigError where the folders of the splits differ.
        """
        config, path, decided = self.run.config, self.run.args.config, {}
        for split in self.splits():
            keys = {**config.dataset[split]._base_, **config.dataset[split].others}
            decided[split] = DATASETS.get(keys["NAME"]).classes_of(keys)
        decided = {split: names for split, names in decided.items() if names is not None}
        if not decided:
            return None
        (first, names), *others = decided.items()
        for split, other in others:
            if other != names:
                raise ConfigError(f"{path}: dataset.{first} has the class folders {listed(names)}, but dataset.{split} "
                                  f"has {listed(other)}: give both the same classes")
        given = self.run.given.model.get("cls_dim")
        if given not in (None, len(names)):
            self.run.log.warning("%s: model.cls_dim is %s, but the data has %d class folders (%s): the model "
                                        "gets %d outputs", path, given, len(names), listed(names), len(names))
        return names

    def splits(self):
        """Return the splits to build, the evaluated one last: ``test``, or ``val`` where there is none, for --test."""
        config, args = self.run.config, self.run.args
        last = "test" if args.test and "test" in config.dataset else "val"
        if last not in config.dataset:
            raise ConfigError(f"{args.config}: key 'dataset.{last}' is missing; classification needs it")
        return [last] if args.test else ["train", last]

    def losses(self, model, batch, iteration):
        points, label = batch
        points = self.augment(subsample(points, self.npoints, random=True))
        return model(points, label)

    def evaluate(self, epoch, best):
        """Return OA and mAcc in percent, with ``--vote`` also those of a vote wherever OA is at its best."""
        logits, labels = [], []
        for points, label in self.val_loader:
            points = subsample(points.to(self.run.device), self.npoints, random=False)
            logits.append(self.model(points)["logits"].cpu())
            labels.append(label)
        metrics = self.accuracies(logits, labels)
        if self.run.args.vote and epoch >= 0 and metrics["OA"] >= best.get("OA", metrics)["OA"]:
            voted = self.vote(voting.collect(self.val_loader, self.run.device, self.npoints), seed=epoch)
            metrics |= {f"{name}-vote": value for name, value in voted.items()}
        return metrics

    def accuracies(self, logits, labels):
        """Return OA and mAcc of lists of logits (B, classes) and labels (B,), those of all processes together."""
        logits, label = (torch.cat(distributed.gather_list(parts)) for parts in (logits, labels))
        return voting.accuracies(logits, label, len(self.val_loader.dataset.class_names))

    def vote(self, clouds, seed):
        """Return OA and mAcc of one vote over ``clouds``."""
        times = self.run.config.vote.times
        logits = voting.vote(self.model, clouds, self.npoints, self.vote_augment, times, seed, self.run.device)
        return self.accuracies(logits, [label for _, _, label in clouds])

    def test(self):
        """Test once as in validation and by ``vote.rounds`` votes; log and return what came out.

        The figure to report is the mean over votes. The best one is chosen by its test accuracy, which makes it too
        high; it is given because published tables hold it.
        """
        run, log = self.run, self.run.log
        self.model.eval()
        rounds = run.config.vote.rounds
        with torch.inference_mode(), run.autocast():
            plain_result = self.evaluate(-1, {})
            log.info("Test  OA %.2f  mAcc %.2f", plain_result["OA"], plain_result["mAcc"])
            clouds = voting.collect(self.val_loader, run.device, self.npoints) if rounds else []
            votes = []
            for index in tqdm(range(rounds), "Voting", unit="vote", leave=False,
                              disable=None if distributed.is_main() else True):
                votes.append(self.vote(clouds, seed=run.args.seed * 1_000_003 + index))
                log.info("Vote %d/%d  OA %.2f  mAcc %.2f", index + 1, rounds, votes[-1]["OA"], votes[-1]["mAcc"])
        result = {"test": plain_result, "votes": votes}
        for name in plain_result if votes else ():
            values = [vote[name] for vote in votes]
            log.info("Mean over %d votes  %s %.2f ± %.2f  (the best of them: %.2f)", rounds, name,
                     statistics.fmean(values), statistics.pstdev(values), max(values))
            result[f"{name} over votes"] = {"mean": statistics.fmean(values), "std": statistics.pstdev(values)}
        return result


def listed(names):
    """Return ``names`` as text, the first few where they are many."""
    return ", ".join(names[:10]) + (" …" if len(names) > 10 else "")


def check_classes(names, trained, path):
    """Raise ConfigError unless the data's class ``names`` are those the checkpoint was ``trained`` on, if it says."""
    if trained is not None and list(map(str, trained)) != names:
        raise ConfigError(f"checkpoint {path} was trained on the classes {listed(trained)}, but the class folders are "
                          f"{listed(names)}: test it on folders of the same names")


def run(args):
    """Train or test a classifier as ``args`` say; returns the trainer's Progress, or what the test gave."""
    run = open_run(args)
    task = Classification(run)
    summarize(run, task.model, task.datasets)
    if args.test:
        result = task.test()
    else:
        result = trainer.fit(run, task)
        report(run.log, result)
    run.close()
    return result


def report(log, progress):
    """Log the last, the best and the best voted accuracy."""
    for title, metrics in (("Last", progress.metrics), ("Best", progress.best.get("OA", {}))):
        if "OA" in metrics:  # there may be none in a run that was stopped and is not trained on
            log.info("%-10s  OA %.2f  mAcc %.2f", title, metrics["OA"], metrics["mAcc"])
    if "OA-vote" in progress.best:
        voted = progress.best["OA-vote"]
        log.info("Best voted  OA %.2f  mAcc %.2f", voted["OA-vote"], voted["mAcc-vote"])
