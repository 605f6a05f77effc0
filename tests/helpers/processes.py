"""Run commands one after the other in every process that torchrun starts: ``processes.py COMMANDS.json``.

COMMANDS.json holds [[module, arguments], …]; ``{n}`` in an argument is the number of processes. What is random in a
training step is drawn alike for any number of processes: for the whole batch, of which each takes its rows. Only so can
their losses be compared; in earnest every process draws its own.
"""
import importlib
import json
import logging
import os
import pathlib
import sys

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tools.engine import trainer
from tools.engine.run import mixed_seed
from utils import distributed
from utils.command import run_command

FILLING = ("aten::exponential_", "aten::uniform_", "aten::bernoulli_", "aten::normal_")
MAKING = ("aten::rand", "aten::randn", "aten::randint")


class NoiseOfTheWholeBatch(TorchDispatchMode):
    """Random operators on tensors whose rows are clouds, or patches of clouds, draw rows for all processes."""

    def __init__(self, clouds):
        super().__init__()
        self.clouds = clouds  # of this process, in a step

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, function._schema.name
        if name in FILLING and self.by_cloud(args[0].shape):
            whole = args[0].new_empty(self.whole(args[0].shape))
            return args[0].copy_(self.own(function(whole, *args[1:], **kwargs)))
        if name in MAKING:
            at = 0 if name != "aten::randint" or isinstance(args[0], (list, tuple)) else len(args) - 1
            if self.by_cloud(args[at]):
                args = [*args[:at], self.whole(args[at]), *args[at + 1:]]
                return self.own(function(*args, **kwargs)).contiguous()
        if name == "aten::multinomial":
            return self.own(function(distributed.gather_batch(args[0]), *args[1:], **kwargs)).contiguous()
        return function(*args, **kwargs)

    def by_cloud(self, shape):
        return len(shape) > 0 and shape[0] % self.clouds == 0

    @staticmethod
    def whole(shape):
        return [shape[0] * distributed.world_size(), *shape[1:]]

    @staticmethod
    def own(whole):
        return whole.chunk(distributed.world_size())[distributed.rank()]


class SameNoise(trainer.Trainer):
    """The trainer, its steps under the noise of the whole batch."""

    def step(self, batch, update=True):
        with NoiseOfTheWholeBatch(len(batch[0])):
            return super().step(batch, update)


def main():
    trainer.seed_step = lambda seed, iteration: torch.manual_seed(mixed_seed(seed, 0, iteration))
    trainer.fit = lambda run, task: SameNoise(run, task).fit()
    for module, argv in json.loads(pathlib.Path(sys.argv[1]).read_text()):
        argv = [text.replace("{n}", os.environ.get("WORLD_SIZE", "1")) for text in argv]
        sys.argv = [module, *argv]
        importlib.import_module(module).main()
        for handler in list(logging.getLogger("act").handlers):
            handler.close()


if __name__ == "__main__":
    run_command(main)
