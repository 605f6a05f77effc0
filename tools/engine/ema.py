"""Averages of the weights over training."""
import contextlib

import torch


class Ema:
    """The exponential moving average of a model's trained parameters, ``decay`` of it kept at every update.

    After n updates at most (1 + n) / (10 + n) is kept, so that the random start is soon forgotten. Buffers, such as the
    statistics of batch norm, are moving averages already and are taken as they are.
    """

    def __init__(self, model, decay):
        self.decay, self.updates = decay, 0
        self.averages = {name: parameter.detach().clone() for name, parameter in self.trained(model).items()}

    @staticmethod
    def trained(model):
        return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

    @torch.no_grad()
    def update(self, model):
        """Move the averages towards the weights that ``model`` has now."""
        self.updates += 1
        kept = min(self.decay, (1 + self.updates) / (10 + self.updates))
        current = self.trained(model)
        names = list(current)
        torch._foreach_lerp_([self.averages[name] for name in names], [current[name] for name in names], 1 - kept)

    @contextlib.contextmanager
    def applied(self, model):
        """Give ``model`` the averages for the time of the block."""
        own = {name: parameter.data for name, parameter in self.trained(model).items()}
        self._set(model, self.averages)
        try:
            yield
        finally:
            self._set(model, own)

    def state_dict(self, model):
        """Return the state dict of ``model`` with the averages in place of its trained parameters."""
        return {**model.state_dict(), **self.averages}

    def load(self, weights, updates):
        """Take the averages from a state dict that ``state_dict`` has returned, after ``updates`` updates."""
        self.updates = updates
        for name, average in self.averages.items():
            average.copy_(weights[name])

    def _set(self, model, values):
        for name, parameter in self.trained(model).items():
            parameter.data = values[name]
