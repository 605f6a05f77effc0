"""What the tools for one's own clouds share: their options, the model, and going on past bad files."""
import sys

import torch

from datasets.base import normalize, upright
from datasets.class_names import known_names
from datasets.point_files import FORMATS, find_files, read_points
from datasets.transforms import furthest_subset
from models.pretrained import build_pretrained, notes_in
from tools.experiment import choose_device
from utils import checkpoint
from utils.config import load_config
from utils.errors import ConfigError, DataError, one_line


def add_arguments(parser):
    """Add the options that all these tools have."""
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help=f"{' '.join(FORMATS)}, or folders of such files")
    add("--config", metavar="FILE", help="the config of the checkpoint (default: what the checkpoint says of itself)")
    add("--ckpts", required=True, metavar="FILE", help="checkpoint (.pth or .safetensors)")
    add("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="override config values")
    add("--up", choices=("y", "z"), default="y", help="the axis that points upwards in the files")
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1 …")


class Model:
    """A trained model, and how clouds are made ready for it."""

    def __init__(self, args):
        content = checkpoint.read(args.ckpts)
        notes = notes_in(content)
        config = load_config(args.config, args.set) if args.config else notes
        if "model" not in config:
            raise ConfigError(f"checkpoint {args.ckpts} does not say what model it is of: give its --config")
        self.device, self.up = choose_device(args.device), args.up
        self.model = build_pretrained(dict(config["model"]), content, args.ckpts).to(self.device)
        self.npoints = config.get("npoints") or 1024
        self.has_head = self.model.trained_head
        names = self.model.class_names or known_names(config, self.model.classes)
        self.class_names = [*names, *(f"class {index}" for index in range(len(names), self.model.classes))]

    def prepare(self, points):
        """Return a cloud (N, 3) as the model wants it (1, npoints, 3): upright, normalised, subsampled.

        Of fewer points than that all are kept.
        """
        points = torch.from_numpy(normalize(upright(points, self.up))).unsqueeze(0).to(self.device)
        return furthest_subset(points, min(self.npoints, points.shape[1]))

    @torch.inference_mode()
    def probabilities(self, points):
        """Return the probability of each class (classes,) for a cloud (N, 3)."""
        return self.model(self.prepare(points))["logits"][0].softmax(-1).cpu()

    @torch.inference_mode()
    def features(self, points):
        """Return the features (C,) of a cloud (N, 3)."""
        return self.model.forward_features(self.prepare(points))[0].float().cpu()


def each_file(args, use, refuse=lambda file, reason: None):
    """Call ``use(file, points)`` for each file that ``args`` names; a bad one is named on stderr and passed over.

    ``refuse(file, reason)`` is told of it too. Returns the number of bad files.
    """
    bad = 0
    for file in find_files(args.files):
        try:
            use(file, read_points(file))
        except DataError as error:
            bad += 1
            reason = one_line(error)
            reason = reason if str(file) in reason else f"{file}: {reason}"
            print(f"error: {reason}", file=sys.stderr, flush=True)
            refuse(file, reason)
    return bad
