"""Reading clouds: a folder of files and the same clouds packed."""
import pathlib
import tempfile
import time

import numpy as np
import torch

from datasets import pack
from datasets.shapenet import ShapeNet
from tools.benchmarks.timing import surfaces


def measure_data(args):
    """Return clouds per second of a folder of ``.npy`` files and of the same clouds packed, read in random order."""
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "lists").mkdir(), (root / "clouds").mkdir()
        names = [f"03001627-{index:06}.npy" for index in range(args.files)]
        cloud = surfaces(1, 8192, torch.device("cpu"))[0].numpy()
        for name in names:
            np.save(root / "clouds" / name, cloud)
        for subset in ("train", "test"):
            (root / "lists" / f"{subset}.txt").write_text("\n".join(names))
        for form in ("npy", "packed"):
            if form == "packed":
                pack.pack_folder(root / "clouds")
            data = ShapeNet(DATA_PATH=root / "lists", PC_PATH=root / "clouds", subset="train", npoints=1024)
            order = np.random.default_rng(0).permutation(len(data))
            start = time.perf_counter()
            for index in order:
                data[index]
            rates[form] = round(len(data) / (time.perf_counter() - start), 1)
    return rates
