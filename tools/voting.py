"""Testing by votes: the logits of several random, augmented subsets of a cloud are averaged."""
import contextlib

import torch

from datasets.transforms import candidates, random_subset
from utils.metrics import mean_class_accuracy, overall_accuracy

TIMES = 10  # views a vote
ROUNDS = 299  # votes of --test


def collect(loader, device, npoints):
    """Return [(points (B, K, C), label (B,)), …] of all clouds, reduced once to what subsets are drawn from."""
    return [(candidates(points.to(device), npoints).cpu(), label) for points, label in loader]


def vote(model, clouds, npoints, augment, times, seed, device):
    """Return the mean logits (N, classes) over ``times`` views of all ``clouds``, which ``collect`` has returned.

    The views depend on ``seed`` alone; torch's random generators are left as they were.
    """
    with isolated_random(seed, device):
        return torch.cat([mean_logits(model, points.to(device), npoints, augment, times) for points, _ in clouds])


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
