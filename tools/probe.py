"""Linear probes of frozen features."""
import warnings

import numpy as np
import torch

from datasets.transforms import subsample

GRID = (0.001, 0.01, 0.1)
FOLDS = 3


def extract_features(model, loader, device, npoints):
    """Return the features (N, C) and labels (N,) of all clouds of ``loader`` by ``model.forward_features``.

    Clouds are reduced to ``npoints`` by furthest point sampling.
    """
    model.eval()
    features, labels = [], []
    with torch.inference_mode():
        for points, label in loader:
            points = subsample(points.to(device), npoints, random=False)
            features.append(model.forward_features(points).float().cpu())
            labels.append(label)
    return torch.cat(features).numpy(), torch.cat(labels).numpy()


def linear_svm(train, test, seed=0):
    """Return the accuracy in percent on ``test`` of a linear SVM fitted on ``train``; both are (features, labels).

    Features are standardised; C is chosen among ``GRID`` by three-fold cross-validation on the training set, or is
    the middle one where a class has fewer clouds than folds.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    svm = make_pipeline(StandardScaler(), LinearSVC(C=GRID[1], random_state=seed))
    if np.unique(train[1], return_counts=True)[1].min() >= FOLDS:
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        svm = GridSearchCV(svm, {"linearsvc__C": GRID}, cv=folds)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=ConvergenceWarning)  # slow for large C, which is seldom chosen
        svm.fit(*train)
    return 100 * float(np.mean(svm.predict(test[0]) == test[1]))
