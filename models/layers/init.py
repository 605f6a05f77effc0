"""Initialisation of weights."""
from torch import nn


def init_truncated_normal(module):
    """Initialise a module's linear layers and convolutions with a normal of 0.02 cut at 2, biases 0."""
    if isinstance(module, (nn.Linear, nn.Conv1d)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_xavier(module):
    """Initialise a module's linear layers with Xavier's uniform rule, biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
