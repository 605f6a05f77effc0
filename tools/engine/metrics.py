"""What is reported: reconstruction, accuracy, use of the codes, and which of two results is the better."""
import math

import torch

from extensions.ops import chamfer
from utils.tables import align

LOWER_IS_BETTER = ("CDL1", "CDL2", "CDL1-coarse", "recon", "loss")


def better(name, one, other):
    """Whether ``one`` is a better value of the metric ``name`` than ``other``; a NaN is worse than any number."""
    if math.isnan(one) or math.isnan(other):
        return not math.isnan(one)
    return one < other if name in LOWER_IS_BETTER else one > other


def f_score(prediction, truth, threshold=0.01):
    """Harmonic mean of precision and recall of clouds (Tatarchenko et al. 2019, "What do single-view …").

    Precision is the share of predicted points less than ``threshold`` (Euclidean) from the nearest true point,
    recall the same the other way round.

    Args: prediction (B, N, 3), truth (B, M, 3). Returns (B,) in 0 … 1; 0 where no point is near.
    Raises ValueError where the shapes do not fit.
    """
    dist1, dist2, _, _ = chamfer(prediction, truth)
    return _f_score(dist1, dist2, threshold)


def reconstruction_metrics(prediction, truth):
    """Compare clouds (B, N, 3) with (B, M, 3): ``F-Score`` at 0.01, ``CDL1`` × 1000 and ``CDL2`` × 1000, each (B,).

    CDL1 is the mean of both mean distances, CDL2 the sum of both mean squared distances, as in Point-BERT.
    """
    dist1, dist2, _, _ = chamfer(prediction, truth)  # B N, B M; squared
    return {"F-Score": _f_score(dist1, dist2, 0.01),
            "CDL1": 1000 * (dist1.sqrt().mean(1) + dist2.sqrt().mean(1)) / 2,
            "CDL2": 1000 * (dist1.mean(1) + dist2.mean(1))}


def _f_score(dist1, dist2, threshold):
    precision, recall = ((dist.sqrt() < threshold).float().mean(1) for dist in (dist1, dist2))  # B
    total = precision + recall
    return torch.where(total > 0, 2 * precision * recall / total.clamp_min(1e-12), 0.0)


class CategoryTable:
    """Means of metrics by category, and over categories.

    ``names`` are the categories' names by label; ``taxonomies``, parallel to them, adds a column of their ids.
    """

    def __init__(self, names, taxonomies=None):
        self.names, self.taxonomies = list(names), taxonomies
        self.sums, self.counts = {}, torch.zeros(len(self.names), dtype=torch.float64)

    def add(self, labels, metrics):
        """Add samples with ``labels`` (B,) and a dict of values (B,)."""
        labels = torch.as_tensor(labels).cpu().long()
        self.counts.index_add_(0, labels, torch.ones(len(labels), dtype=torch.float64))
        for name, values in metrics.items():
            total = self.sums.setdefault(name, torch.zeros_like(self.counts))
            total.index_add_(0, labels, torch.as_tensor(values).detach().cpu().double())

    def overall(self):
        """Return a dict of the means over the categories that have a sample, each category counting alike."""
        present = self.counts > 0
        return {name: (total[present] / self.counts[present]).mean().item() for name, total in self.sums.items()}

    def render(self):
        """Return the table as aligned text: one category with samples a line, ``Overall`` last."""
        ids = self.taxonomies
        rows = [["Category"] if ids is None else ["Taxonomy", "Category"]]
        rows[0] += ["#", *self.sums]
        for index, name in enumerate(self.names):
            count = int(self.counts[index])
            if count:
                means = [f"{total[index].item() / count:.3f}" for total in self.sums.values()]
                rows.append([name, str(count), *means] if ids is None else [ids[index], name, str(count), *means])
        means = [f"{value:.3f}" for value in self.overall().values()]
        rows.append([*(["Overall"] if ids is None else ["Overall", ""]), str(int(self.counts.sum())), *means])
        return align(rows, left=1 if ids is None else 2)


def overall_accuracy(prediction, label):
    """Share of right predictions (N,) in percent."""
    return 100 * (prediction == label).double().mean().item()


def mean_class_accuracy(prediction, label, num_classes):
    """Mean over the classes present in ``label`` (N,) of their accuracies, in percent."""
    count = torch.bincount(label, minlength=num_classes)  # num_classes
    right = torch.bincount(label[prediction == label], minlength=num_classes)
    return 100 * (right[count > 0] / count[count > 0].double()).mean().item()


def confusion(prediction, label, num_classes):
    """Return the counts (true class, predicted class) of labels of any shape, int64."""
    pairs = label.flatten().long() * num_classes + prediction.flatten().long()
    return torch.bincount(pairs, minlength=num_classes ** 2).view(num_classes, num_classes)


def segmentation_scores(counts):
    """Return mIoU, OA and mAcc in percent, and each class's IoU (classes,), NaN for absent ones, of ``confusion``.

    Means are over the classes that are there in truth or prediction (mIoU), or in truth (mAcc).
    """
    counts = counts.double()
    right, true, predicted = counts.diag(), counts.sum(1), counts.sum(0)
    iou = right / (true + predicted - right)  # 0 / 0 where a class is absent
    accuracy = right / true
    scores = {"mIoU": 100 * iou.nanmean().item(), "OA": 100 * (right.sum() / counts.sum()).item(),
              "mAcc": 100 * accuracy.nanmean().item()}
    return scores, 100 * iou


def part_ious(prediction, label, parts):
    """Return the mean IoU over ``parts`` of each object (B,); a part absent in truth and prediction counts as 1.

    ``prediction`` and ``label`` are (B, N). The convention is that of Yi et al. 2016 and of PointNet.
    """
    ious = []
    for part in parts:
        one, other = prediction == part, label == part  # B N
        union = (one | other).sum(1)
        ious.append(torch.where(union > 0, (one & other).sum(1) / union.clamp_min(1), 1.0))
    return torch.stack(ious).mean(0)
