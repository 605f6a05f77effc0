"""Foundation models of timm: building them, and where their weights come from."""
import math
import pathlib
import threading
import urllib.request
import warnings
from typing import NamedTuple

from utils.checkpoint import read_weights
from utils.errors import CheckpointError, ConfigError, one_line
from utils.torch_file import TorchScriptError

PROBE_SECONDS = 8


class Keys(NamedTuple):
    """What the config calls the arguments of ``create_pretrained``, for messages."""

    name: str = "model.visual_embed_type"
    pretrained: str = "model.visual_embed_pretrained"
    kwargs: str = "model.visual_embed_kwargs"


def create_pretrained(name, pretrained, kwargs, parts, keys=Keys()):  # noqa: B008 - immutable
    """Return the timm model ``name`` with the weights that ``pretrained`` asks for.

    Args:
        name: a timm model name, old ones included.
        pretrained: ``True`` downloads the weights through timm; ``False`` leaves them random; ``auto`` downloads
            where it can and otherwise warns and leaves them random; any other text is the path of a ``.safetensors``
            or ``.pth`` file, which must hold every weight of ``parts``.
        kwargs: further arguments of timm's ``create_model``.
        parts: prefixes of the weights that are used.
        keys: the names of these arguments in the config.

    Raises ConfigError for an unknown name or arguments, or where the weights cannot be downloaded; CheckpointError
    for a file that is damaged or belongs to another model.
    """
    import timm

    if not timm.is_model(name):
        raise ConfigError(f"{keys.name} '{name}' is not a model of timm {timm.__version__}")
    if pretrained in (True, "auto"):
        return _download(timm, name, kwargs, keys, required=pretrained is True)
    model = _create(timm, name, kwargs, keys)
    if pretrained is not False:
        load_file(model, pretrained, parts, keys)
    return model


def _create(timm, name, kwargs, keys, pretrained=False):
    files = [key for key in kwargs if key.startswith(("checkpoint", "pretrained"))]
    if files:  # timm would read whatever file, or address, these name
        raise ConfigError(f"{keys.kwargs} names {files[0]}: give the weights' file as {keys.pretrained}")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Mapping deprecated model name")  # published configs hold old names
            return timm.create_model(name, pretrained=pretrained, **{"num_classes": 0, **kwargs})
    except (TypeError, AssertionError) as error:
        raise ConfigError(f"timm cannot build '{name}' with {keys.kwargs} {dict(kwargs)}: "
                          f"{error}") from error


def _download(timm, name, kwargs, keys, required):
    """Return the pretrained model from timm's cache or the model hub, or say in one line why it can't be had."""
    reason = "the model hub cannot be reached"
    if _cached(timm, name) or hub_answers():
        try:
            return _create(timm, name, kwargs, keys, pretrained=True)
        except (OSError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
    if required:
        raise ConfigError(f"the pretrained weights of '{name}' could not be downloaded ({reason}). Set "
                          f"{keys.pretrained} to a .safetensors or .pth file of them, or to false")
    warnings.warn(f"no pretrained weights for '{name}' ({reason}); going on with random weights", stacklevel=2)
    return _create(timm, name, kwargs, keys)


def _cached(timm, name):
    """Whether timm has downloaded the weights before."""
    from huggingface_hub import try_to_load_from_cache

    repository = timm.get_pretrained_cfg(name).hf_hub_id
    return bool(repository) and isinstance(try_to_load_from_cache(repository, "model.safetensors"), str)


def hub_answers():
    """Whether the model hub answers within a few seconds; name look-ups can hang, so it is asked in a thread."""
    from huggingface_hub.constants import ENDPOINT

    answers = []

    def ask():
        try:
            request = urllib.request.Request(ENDPOINT, method="HEAD")
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
                answers.append(True)
        except OSError:
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return bool(answers)


def load_file(model, path, parts, keys=Keys()):  # noqa: B008 - immutable
    """Load the weights of ``model`` that begin with one of ``parts``; none of them may be missing or left over.

    The names are timm's or, of CLIP, OpenAI's and open_clip's. Raises CheckpointError with the counts.
    """
    wanted = {key: value for key, value in model.state_dict().items() if key.startswith(parts)}
    given = {key: value for key, value in timm_weights(model, path).items() if key.startswith(parts)}
    if "pos_embed" in wanted and "pos_embed" in given:
        given["pos_embed"] = resampled_positions(model, given["pos_embed"])
    fitting = {key: value for key, value in given.items() if key in wanted and value.shape == wanted[key].shape}
    if len(fitting) != len(wanted) or len(fitting) != len(given):
        raise CheckpointError(
            f"{path} does not hold the Transformer that {keys.name} and {keys.kwargs.rsplit('.', 1)[-1]} describe: of "
            f"its {len(wanted)} weights {len(fitting)} match, {len(wanted.keys() - given.keys())} are missing, "
            f"{len(given.keys() - wanted.keys())} are unexpected, the others differ in shape; names must be timm's, or "
            f"OpenAI's of CLIP")
    model.load_state_dict(fitting, strict=False)


def timm_weights(model, path):
    """Return the weights in a file under timm's names for ``model``; those of CLIP may have OpenAI's."""
    try:
        weights = read_weights(path)
    except TorchScriptError as error:
        raise CheckpointError(f"{path} is a TorchScript archive, as OpenAI has it; give timm's weights, or the state "
                              f"dict: torch.save(torch.jit.load('{pathlib.Path(path).name}').state_dict(), "
                              f"'clip.pth')") from error
    if "visual.class_embedding" not in weights and "class_embedding" not in weights:
        return weights
    from timm.models.vision_transformer import checkpoint_filter_fn

    tower = {key.removeprefix("visual."): value for key, value in weights.items()
             if key.startswith("visual.") or "visual.class_embedding" not in weights}
    try:
        return checkpoint_filter_fn({f"visual.{key}": value for key, value in tower.items()}, model)
    except (KeyError, AttributeError, RuntimeError, IndexError) as error:
        raise CheckpointError(f"{path} holds an image tower of CLIP that is none of timm's ({one_line(error)[:80]}): "
                              f"give timm's weights of it") from error


def resampled_positions(model, positions):
    """Return a file's ``pos_embed`` (1, N, C) for the size of image that ``model`` takes, as timm does for its own."""
    from timm.layers import resample_abs_pos_embed

    prefix = 0 if getattr(model, "no_embed_class", False) else getattr(model, "num_prefix_tokens", 0)
    side = math.isqrt(max(positions.shape[-2] - prefix, 0)) if positions.dim() == 3 else 0
    if not side or side ** 2 != positions.shape[1] - prefix or positions.shape[1:] == model.pos_embed.shape[1:]:
        return positions
    return resample_abs_pos_embed(positions, list(model.patch_embed.grid_size), num_prefix_tokens=prefix)
