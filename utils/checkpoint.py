"""The one reader and writer of checkpoints."""
import json
import pathlib
import re

import numpy as np
import torch

from utils.errors import CheckpointError
from utils.files import replacing
from utils.stand_ins import StandIn
from utils.torch_file import read_pickled, reason
from utils.weight_names import (
    CLASS_TOKEN,
    common_prefix,
    compare_heads,
    describe_unused,
    method_of,
    strip_prefix,
    unwrap,
)

CONTAINERS = ("base_model", "model_state_dict", "model", "state_dict")  # what files call their weights


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

    Objects of classes that torch does not make are left out, see ``utils.stand_ins``. Raises CheckpointError where the
    file is missing, cannot be read, is damaged, or is no checkpoint.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise CheckpointError(f"checkpoint {path} is a folder: give the file in it")
    try:
        with open(path, "rb") as file:
            start = file.read(9)
            if start.endswith(b"{") or path.suffix == ".safetensors" and not start.startswith(b"PK"):
                return _read_safetensors(path)
            return read_pickled(file)
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {path} does not exist") from error
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
    except CheckpointError as error:
        raise type(error)(f"checkpoint {path} {error}") from error


def _as_safetensors(checkpoint):
    from safetensors.torch import save as serialize

    weights = {key: value.contiguous() for key, value in checkpoint["base_model"].items()}
    return serialize(weights, {"notes": json.dumps(checkpoint.get("notes", {}))})


def _read_safetensors(path):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
            notes = json.loads((file.metadata() or {}).get("notes", "{}"))
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"is damaged or not a checkpoint: {reason(error)}") from error
    return {"base_model": weights, "notes": notes} if notes else weights


def read_weights(path):
    """Return the state dict in the file ``path``: its ``base_model`` (or like entry), names unwrapped."""
    return weights_in(read(path), path)


def weights_in(content, path):
    """Return the state dict in ``content``, which ``read`` has returned for ``path``."""
    content = content if isinstance(content, dict) else {}
    known = [(key, kind) for kind in (dict, StandIn) for key in CONTAINERS]
    container = next((key for key, kind in known if isinstance(content.get(key), kind)), None)
    entries = content if container is None else content[container]
    if isinstance(entries, StandIn):
        raise CheckpointError(f"checkpoint {path} holds as '{container}' an object of the class {entries.asked_for}, "
                              f"not weights: where that class is at hand, write its state_dict()")
    weights = {}
    for key, value in entries.items():
        if isinstance(key, str) and isinstance(value, torch.Tensor):
            weights[key] = value
        elif container is not None and isinstance(value, (StandIn, np.ndarray)):
            kind = value.asked_for if isinstance(value, StandIn) else "numpy array"
            raise CheckpointError(f"checkpoint {path} holds the weight '{key}' as a {kind}; it must be a tensor")
    if not weights:
        held = ", ".join(repr(str(key)[:40]) for key in list(content)[:5])
        raise CheckpointError(f"checkpoint {path} holds no model weights, neither itself nor under "
                              f"{', '.join(CONTAINERS)}; it holds {held or 'nothing'}")
    for key, value in weights.items():
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_complex():
            raise CheckpointError(f"checkpoint {path} holds '{key}' in a form that no weight here has (sparse, "
                                  f"quantized, complex or without values)")
    return unwrap(weights, path)


def load_model(model, weights, path, complete=False):
    """Load ``weights`` (a state dict) into ``model``, a ``Loadable``, and return a one-line report.

    The model says how names may differ and what may be missing or left over. Anything else that is missing, left over
    or of another shape is a CheckpointError with the counts; ``path`` names the file in it. ``complete`` lets nothing
    be missing.
    """
    weights, beside, prefix = strip_prefix(weights, model.weight_prefixes)
    weights = model.upgrade_weights(_rename(weights, model.weight_names))
    own = model.state_dict()
    optional = () if complete else tuple(model.optional_weights)
    if prefix == "MAE_encoder." and not complete and not any(key in weights for key in CLASS_TOKEN):
        optional += CLASS_TOKEN
    fits = {key: value for key, value in weights.items() if key in own and value.shape == own[key].shape}
    shapes = [key for key in weights if key in own and key not in fits]
    missing = [key for key in own if key not in weights]
    unexpected = [key for key in weights if key not in own]
    unused = re.compile("|".join(model.unused_weights) or "(?!)")
    wrong = ([key for key in shapes + missing if not key.startswith(optional)]
             + [key for key in unexpected if not key.startswith(optional) and not unused.match(key)])
    counts = (f"{len(fits)} of {len(own)} weights match, {len(missing)} missing, {len(unexpected) + len(beside)} "
              f"unexpected, {len(shapes)} of another shape")
    if wrong:
        reason = _why(wrong, weights, own, [*beside, *weights], prefix)
        raise CheckpointError(f"checkpoint {path} is not of this {type(model).__name__}: {counts}; {reason}")
    for part in optional:  # a head of another form is left out, not mixed with a new one; another number of classes is
        if _differs(part, weights, own):
            fits = {key: value for key, value in fits.items() if not key.startswith(part)}
    model.load_state_dict(fits, strict=False)
    return f"{path}: {counts}{describe_unused([*beside, *unexpected])}"


def _why(wrong, weights, own, names, prefix):
    """Say what keeps weights from being a model's: how their head differs, whose they are, or an example."""
    heads = compare_heads(weights, own)
    if heads and all(key.startswith("cls_head_finetune.") for key in wrong):
        return f"{heads}: its encoder can be fine-tuned (--finetune_model), but not tested with this head"
    before = None if prefix else common_prefix(names, own)
    if before:
        return f"its names begin with '{before}', which no model here has: write the file again without that"
    method = None if prefix else method_of(names)
    whose = f", and it looks like a file of {method}" if method else ""
    return f"for example '{wrong[0]}'{whose}"


def _differs(part, weights, own):
    """Whether the weights that begin with ``part`` are of another form than the model's, but for their last width."""
    return any(key not in own or value.shape[1:] != own[key].shape[1:] for key, value in weights.items()
               if key.startswith(part))


def _rename(weights, names):
    """Replace beginnings of names."""
    def own(key):
        return next((ours + key[len(others):] for others, ours in names.items() if key.startswith(others)), key)

    return {own(key): value for key, value in weights.items()}
