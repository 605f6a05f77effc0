"""Testing by votes: the logits of several random, augmented subsets of a cloud are averaged."""
import contextlib

import torch

from datasets.transforms import candidates, random_subset
from tools.engine.metrics import mean_class_accuracy, overall_accuracy
from tools.engine.run import mixed_seed


def collect(loader, device, npoints):
    """Return [(number of the batch, points (B, K, C), label (B,)), …] of this process's share of the clouds.

    They are reduced once to what subsets are drawn from.
    """
    return [(number, candidates(points.to(device), npoints).cpu(), label)
            for number, (points, label) in enumerate(loader, loader.batch_sampler.first)]


def vote(model, clouds, npoints, augment, times, seed, device):
    """Return a list of mean logits (B, classes) over ``times`` views of each of ``clouds``, as from ``collect``.

    The views depend on ``seed`` and the batch's number alone; torch's random generators are left as they were.
    """
    logits = []
    for number, points, _ in clouds:
        with isolated_random(mixed_seed(seed, number), device):
            logits.append(mean_logits(model, points.to(device), npoints, augment, times))
    return logits


def mean_logits(model, points, npoints, augment, times):
    """Return the mean logits (B, classes) over ``times`` random augmented subsets of clouds (B, K, C)."""
    views = (model(augment(random_subset(points, npoints)))["logits"].float() for _ in range(times))
    return (sum(views) / times).cpu()


@contextlib.contextmanager
def isolated_random(seed, device):
    """Seed torch's generators inside the block and put them back behind it."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def accuracies(logits, label, classes):
    """Return OA and mAcc, in percent, of logits (N, classes)."""
    prediction = logits.argmax(-1)
    return {"OA": overall_accuracy(prediction, label), "mAcc": mean_class_accuracy(prediction, label, classes)}
