"""Means of what training steps report."""
import torch

from utils import distributed


class AverageMeter:
    """Means over an epoch of the scalars that a step reports, weighted by batch size; summed on the device."""

    def __init__(self, sums=None, count=0):
        self.sums, self.count = dict(sums or {}), count

    def add(self, values, weight):
        self.count += weight
        for name, value in values.items():
            if not isinstance(value, torch.Tensor) or value.dim() == 0:
                self.sums[name] = self.sums.get(name, 0) + torch.as_tensor(value).detach().double() * weight

    def values(self):
        """Return the means over what all processes have added."""
        names = sorted(self.sums)
        total = distributed.sum_all(torch.stack([*(self.sums[name].cpu() for name in names),
                                                 torch.tensor(self.count, dtype=torch.float64)])).tolist()
        return {name: total[names.index(name)] / total[-1] for name in self.sums}

    def state(self):
        """Return the sums and the count as plain values."""
        return {"sums": {name: value.item() for name, value in self.sums.items()}, "count": self.count}

    @classmethod
    def of(cls, states):
        """Return this process's part of what the processes had, given by their ``state()``."""
        if len(states) != distributed.world_size():  # other processes than now: the main one takes all of it
            names = states[0]["sums"] if states else {}
            states = [{"sums": {name: sum(state["sums"][name] for state in states) for name in names},
                       "count": sum(state["count"] for state in states)}]
            states += [{"sums": dict.fromkeys(names, 0.0), "count": 0}] * (distributed.world_size() - 1)
        own = states[distributed.rank()]
        return cls({name: torch.tensor(value, dtype=torch.float64) for name, value in own["sums"].items()},
                   own["count"])
