"""Probes without fine-tuning: how well frozen features of a student separate the classes."""
import warnings

import numpy as np
import torch

from datasets.transforms import subsample
from models.pretrained import build_pretrained
from tools.engine.loaders import build_dataset, build_loader
from tools.engine.run import open_run, summarize
from utils import checkpoint, distributed
from utils.distributed import gather_list
from utils.errors import ConfigError
from utils.parser import PROBED
from utils.schema import Probe

SVC_C = {"modelnet40": [0.0093], "scan": [0.018]}  # of I2P-MAE, by the data that --test_svm names
FOLDS = 3


def run(args):
    """Fit every probe on the training clouds of the config, test it on the others, and return the accuracies."""
    run = open_run(args)
    config = run.config
    check_data(config, args)
    content = checkpoint.read(args.ckpts) if args.ckpts else None
    model = build_pretrained(run.given.model, content, args.ckpts, head=False).to(run.device)
    run.log.info(model.load_report)
    splits = ["extra_train" if "extra_train" in config.dataset else "train", "val"]
    datasets = {split: build_dataset(run, split) for split in splits}
    summarize(run, model, datasets)
    with run.autocast():
        train, test = (extract_features(model, build_loader(run, data, 2 * config.total_bs), run.device,
                                        config.npoints or data.npoints) for data in datasets.values())
    accuracies = distributed.broadcast_from_main(lambda: report(run, train, test))
    run.close()
    return accuracies


def check_data(config, args):
    """Raise ConfigError unless the config has test data, and of the kind that ``--test_svm`` names."""
    if "val" not in config.dataset:
        raise ConfigError(f"{args.config}: key 'dataset.val' is missing; probes are tested on it")
    name = config.dataset.val._base_.NAME
    if args.test_svm in PROBED and name not in PROBED[args.test_svm]:
        raise ConfigError(f"--test_svm {args.test_svm}: {args.config} has the data set {name}; give a config of "
                          f"{' or '.join(PROBED[args.test_svm])}")


def report(run, train, test):
    """Fit the probes on ``train``, log and return their accuracies in percent on ``test``."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC, LinearSVC

    keys, seed = run.config.probe, run.args.seed
    probes = {
        "Linear SVM": (LinearSVC(random_state=seed), "C", keys.svm_c),
        "Logistic regression": (LogisticRegression(max_iter=300), "C", keys.logistic_c),
        "k nearest neighbours": (KNeighborsClassifier(), "n_neighbors",
                                 [k for k in keys.neighbours if 2 * len(train[1]) >= 3 * k] or [1])}
    costs = keys.svc_c or SVC_C.get(run.args.test_svm)
    if costs:  # as I2P-MAE has it
        probes["Linear SVC"] = (SVC(kernel="linear"), "C", costs)
    accuracies = {}
    for name, (estimator, parameter, values) in probes.items():
        accuracies[name], chosen, searched = fit_probe(estimator, {parameter: values}, train, test, seed,
                                                       scaled=not isinstance(estimator, SVC))
        how = "by cross-validation on the training set" if searched else (
            "as given" if len(values) == 1 else "too few clouds for cross-validation")
        run.log.info("%-20s  OA %.2f  (%s = %g, %s)", name, accuracies[name],
                     "k" if parameter == "n_neighbors" else parameter, chosen, how)
    return accuracies


def extract_features(model, loader, device, npoints):
    """Return the features (N, C) and labels (N,) of all clouds of ``loader`` by ``model.forward_features``.

    Clouds of more than ``npoints`` points are reduced to these by furthest point sampling.
    """
    model.eval()
    features, labels = [], []
    with torch.inference_mode():
        for points, label in loader:
            points = subsample(points.to(device), min(npoints, points.shape[1]), random=False)
            features.append(model.forward_features(points).float().cpu())
            labels.append(label)
    return torch.cat(gather_list(features)).numpy(), torch.cat(gather_list(labels)).numpy()


def linear_svm(train, test, seed=0, grid=Probe().svm_c):  # noqa: B008 - immutable
    """Return the accuracy in percent on ``test`` of a linear SVM fitted on ``train``; both are (features, labels).

    C is chosen among ``grid`` as ``fit_probe`` says.
    """
    from sklearn.svm import LinearSVC

    return fit_probe(LinearSVC(random_state=seed), {"C": grid}, train, test, seed)[0]


def fit_probe(estimator, choices, train, test, seed=0, scaled=True):
    """Fit ``estimator`` on features, standardised if ``scaled``.

    Returns its accuracy in percent on ``test``, the value that was chosen, and whether there was a search for it.

    ``choices``, a dict of one parameter's name → values, is decided by three-fold cross-validation on the training
    set; where a class has fewer clouds than folds it is the middle value. ``train`` and ``test`` are (features (N, C),
    labels (N,)).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    (name, values), = choices.items()
    estimator.set_params(**{name: values[len(values) // 2]})
    model = Pipeline([("scale", StandardScaler() if scaled else "passthrough"), ("probe", estimator)])
    if np.unique(train[1], return_counts=True)[1].min() >= FOLDS and len(values) > 1:
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        model = GridSearchCV(model, {f"probe__{name}": values}, cv=folds)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=ConvergenceWarning)  # slow for large C, which is seldom chosen
        model.fit(*train)
    searched = hasattr(model, "best_params_")
    chosen = model.best_params_[f"probe__{name}"] if searched else values[len(values) // 2]
    return 100 * float(np.mean(model.predict(test[0]) == test[1])), chosen, searched
