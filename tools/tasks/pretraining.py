"""Stage II: masked distillation, watched by a linear SVM on the frozen student's features."""
from datasets.transforms import build_transform
from models import build_model_from_cfg
from tools.engine import trainer
from tools.engine.loaders import build_dataset, build_loader
from tools.engine.run import open_run, summarize
from tools.engine.task import Task
from tools.tasks.probing import extract_features, linear_svm
from utils import distributed
from utils.checkpoint import load_model, read_weights
from utils.config import plain

LEAST_GAIN = 0.02  # of the loss over that of predicting the mean
LEAST_BETWEEN = 0.02  # share of the targets' variance that tells clouds apart


class Pretraining(Task):
    """The task of stage II."""

    metrics = {"SVM": "ckpt-best.pth"}
    warned = False

    def __init__(self, run):
        self.run = run
        config = run.config
        self.model = build_model_from_cfg(config.model)
        if run.args.start_ckpts:
            path = run.args.start_ckpts
            run.log.info(load_model(self.model, read_weights(path), path))
        self.model.to(run.device)
        self.datasets = {split: build_dataset(run, split) for split in ("train", "extra_train", "val")}
        self.loader = build_loader(run, self.datasets["train"], config.total_bs, train=True)
        self.augment = build_transform(config.train_transforms)
        self.notes = {"model": plain(config.model), "npoints": self.datasets["train"].npoints,
                      "up": getattr(self.datasets["train"], "up", "y")}
        probed = [self.datasets[split] for split in ("extra_train", "val")]
        self.probe_loaders = [build_loader(run, data, 2 * config.total_bs) for data in probed if data]

    def losses(self, model, batch, iteration):
        points, _ = batch
        return model(self.augment(points))

    def watch(self, epoch, values):
        """Warn once, after the first epoch, where a student has learned the mean target alone, or can learn little."""
        if self.warned or epoch == 0 or "mean_loss" not in values:
            return
        loss, reasons = values.get("token_loss", values["loss"]), []
        if loss > (1 - LEAST_GAIN) * values["mean_loss"]:
            reasons.append(f"the student predicts hardly more than the mean target (loss {loss:.3g}, of the mean "
                           f"{values['mean_loss']:.3g})")
        if values["target_between"] < LEAST_BETWEEN:
            reasons.append(f"the targets hardly differ between clouds ({values['target_between']:.1%} of their "
                           f"variance)")
        if reasons:
            self.warned = True
            self.run.log.warning(
                "This pre-training learns little: %s. Keys that help: model.target_norm: standardise, model.loss: "
                "ntxent, model.cloud_loss: 1, model.dvae_config.teacher_target: before_dgcnn2 and teacher_codes: soft; "
                "see docs/pretraining.md", "; ".join(reasons))

    def evaluate(self, epoch, best):
        """Return the accuracy of a linear SVM, or None unless the config has ``extra_train`` and ``val``."""
        if len(self.probe_loaders) < 2:
            return None
        npoints = self.datasets["train"].npoints
        train, test = (extract_features(self.model, loader, self.run.device, npoints)
                       for loader in self.probe_loaders)
        return {"SVM": distributed.broadcast_from_main(lambda: linear_svm(train, test, self.run.args.seed))}


def run(args):
    """Pre-train a student as ``args`` say; returns the trainer's Progress."""
    run = open_run(args)
    task = Pretraining(run)
    summarize(run, task.model, {split: data for split, data in task.datasets.items() if data is not None})
    progress = trainer.fit(run, task)
    run.close()
    return progress
