"""Heads of classification."""
from torch import nn


def build_head(width, classes, transfer_type):
    """Return the head: one linear layer for ``linear``, else three with batch norm and dropout 0.5 between."""
    if transfer_type == "linear":
        return nn.Sequential(nn.Linear(width, classes))
    return nn.Sequential(
        nn.Linear(width, 256), nn.BatchNorm1d(256), nn.ReLU(inplace=True), nn.Dropout(0.5),
        nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU(inplace=True), nn.Dropout(0.5),
        nn.Linear(256, classes))
