"""The one reader and writer of checkpoints."""
import json
import pathlib
import pickle
import re
import zipfile

import torch

from utils.errors import CheckpointError
from utils.files import replacing
from utils.numpy_pickle import MAKERS

# a checkpoint of the published code may hold numpy scalars among its metrics
NUMPY_SCALARS = [(MAKERS[name], name) for name in ("numpy.dtype", "numpy.core.multiarray.scalar",
                                                   "numpy._core.multiarray.scalar")]


def save(checkpoint, path, keep=None):
    """Write ``checkpoint`` to ``path`` by way of a temporary file, so that no half-written file bears the name.

    The file that was there is then called ``keep``. To a ``.safetensors`` file goes its ``base_model`` alone, and its
    ``notes`` as JSON in the file's metadata.
    """
    path = pathlib.Path(path)
    with replacing(path, durable=True, keep=keep) as file:
        if path.suffix == ".safetensors":
            file.write(_as_safetensors(checkpoint))
        else:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch's own, while it deals with a full disk, say
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise


def read(path):
    """Return what the checkpoint file ``path`` holds, on the CPU; no code in it is run.

    Raises CheckpointError where the file is missing, damaged, or holds anything but tensors and plain values.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        _refuse_packed(path)
        with torch.serialization.safe_globals(NUMPY_SCALARS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a damaged pickle makes its reader trip over anything
        raise CheckpointError(f"checkpoint {path} is damaged or not a checkpoint: {_reason(error)}") from error


def _reason(error):
    """Return what is wrong, without torch's advice to read the file in a way that runs what is in it."""
    if isinstance(error, pickle.UnpicklingError) and error.__context__ is not None:
        error = error.__context__  # what torch wraps its advice around
    text = re.split(r" was not an allowed|\. Please|\. In PyTorch", " ".join(str(error).split()))[0]
    return text[:160] or type(error).__name__


def _refuse_packed(path):
    """Raise ValueError for a zip file that unpacks to more than its size; torch stores tensors as they are."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            size = sum(entry.file_size for entry in file.infolist())
        if size > path.stat().st_size:
            raise ValueError(f"it is packed and would take {size / 1e9:.3g} GB")


def _as_safetensors(checkpoint):
    from safetensors.torch import save as serialize

    weights = {key: value.contiguous() for key, value in checkpoint["base_model"].items()}
    return serialize(weights, {"notes": json.dumps(checkpoint.get("notes", {}))})


def _read_safetensors(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        notes = json.loads((file.metadata() or {}).get("notes", "{}"))
    return {"base_model": weights, "notes": notes} if notes else weights


def read_weights(path):
    """Return the state dict in the file ``path``: its ``base_model`` (or like entry) without ``module.`` prefixes."""
    return weights_in(read(path), path)


def weights_in(content, path):
    """Return the state dict in ``content``, which ``read`` has returned for ``path``."""
    for key in ("base_model", "model_state_dict", "model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    content = content if isinstance(content, dict) else {}
    weights = {key.removeprefix("module."): value for key, value in content.items()
               if isinstance(key, str) and isinstance(value, torch.Tensor)}
    if not weights:
        raise CheckpointError(f"checkpoint {path} holds no model weights")
    for key, value in weights.items():
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_complex():
            raise CheckpointError(f"checkpoint {path} holds '{key}' in a form that no weight here has (sparse, "
                                  f"quantized, complex or without values)")
    return weights


def load_model(model, weights, path, complete=False):
    """Load ``weights`` (a state dict) into ``model`` and return a one-line report.

    A model may say by attributes which prefixes a weight's name may bear (``weight_prefixes``), how else names may
    begin (``weight_names``, a dict of others → its own), which of its own weights may be missing
    (``optional_weights``) and which others may be left over (``unused_weights``). Anything else that is missing, left
    over or of another shape is a CheckpointError with the counts; ``path`` names the file in it. ``complete`` lets
    nothing be missing.
    """
    weights = _strip(weights, getattr(model, "weight_prefixes", ()))
    weights = _rename(weights, getattr(model, "weight_names", {}))
    own = model.state_dict()
    optional = () if complete else tuple(getattr(model, "optional_weights", ()))
    unused = tuple(getattr(model, "unused_weights", ()))
    fits = {key: value for key, value in weights.items() if key in own and value.shape == own[key].shape}
    shapes = [key for key in weights if key in own and key not in fits]
    missing = [key for key in own if key not in weights]
    unexpected = [key for key in weights if key not in own]
    wrong = ([key for key in shapes if not key.startswith(optional)]
             + [key for key in missing if not key.startswith(optional)]
             + [key for key in unexpected if not key.startswith(unused)])
    counts = (f"{len(fits)} of {len(own)} weights match, {len(missing)} missing, {len(unexpected)} unexpected, "
              f"{len(shapes)} of another shape")
    if wrong:
        raise CheckpointError(f"checkpoint {path} is not of this {type(model).__name__}: {counts}; "
                              f"for example '{wrong[0]}'")
    model.load_state_dict(fits, strict=False)
    return f"{path}: {counts}"


def _strip(weights, prefixes):
    """Remove the first of ``prefixes`` that names bear; weights that bear it take precedence over those that don't."""
    for prefix in prefixes:
        if any(key.startswith(prefix) for key in weights):
            inner = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
            return {key: value for key, value in weights.items() if not key.startswith(prefix)} | inner
    return weights


def _rename(weights, names):
    """Replace beginnings of names."""
    def own(key):
        return next((ours + key[len(others):] for others, ours in names.items() if key.startswith(others)), key)

    return {own(key): value for key, value in weights.items()}
