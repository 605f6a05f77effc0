"""Probes of frozen features: linear SVM, logistic regression and k nearest neighbours."""
import warnings

import numpy as np
import torch

from datasets.transforms import subsample
from utils.distributed import gather_list

SVM_C = (0.001, 0.01, 0.1)
SVC_C = {"modelnet40": [0.0093], "scan": [0.018]}  # of I2P-MAE, by the data that --test_svm names
LOGISTIC_C = (0.001, 0.01, 0.1, 1)
NEIGHBOURS = (1, 5, 10, 20)
FOLDS = 3


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


def linear_svm(train, test, seed=0, grid=SVM_C):
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
