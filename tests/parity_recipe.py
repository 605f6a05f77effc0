"""How parity cases are filled: every weight and every input follows from its name and a seed."""
import json
import zlib

import numpy as np
import torch


def weight(name, shape):
    """Return the float32 value of the state-dict entry ``name``."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_var":
        values = 0.5 + np.abs(values)
    elif leaf == "running_mean":
        values = 0.1 * values
    elif len(shape) <= 1:
        values = 1 + 0.1 * values if leaf == "weight" else 0.02 * values
    else:
        values = values / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


def fill(model, prefix=""):
    """Load the recipe's values into ``model``; ``prefix`` is left out of the names that bear it."""
    model.load_state_dict({
        key: weight(key.removeprefix(prefix), tuple(value.shape)) if value.is_floating_point() else value * 0
        for key, value in model.state_dict().items()})
    return model


def cloud(seed, batch, points):
    """Return the (batch, points, 3) float32 input of a case."""
    random = np.random.RandomState(seed)
    xyz = random.standard_normal((batch, points, 3))
    xyz /= np.linalg.norm(xyz, axis=-1, keepdims=True)
    xyz *= random.uniform(0.3, 1, (batch, points, 1)) * np.array([1, 0.7, 0.5])
    return torch.from_numpy(xyz.astype(np.float32))


def load_case(path):
    """Return ``(meta, arrays)`` of a case file."""
    with np.load(path) as case:
        return json.loads(str(case["meta"])), {key: case[key] for key in case.files if key != "meta"}
