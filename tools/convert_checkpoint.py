"""Write a slim copy of a checkpoint: ``python tools/convert_checkpoint.py IN OUT`` (.pth or .safetensors).

Left out are the optimizer, what resuming needs, and frozen models: the teacher of stage II, the image model of I2P-MAE.
The copy is read everywhere a checkpoint is, the published code included (as .pth), but for two of its loaders, for
which ``--published`` adds what they want: segmentation's weights also as ``model_state_dict``, and the weights of CLIP
in a pre-trained I2P-MAE, from the file itself, from ``--clip FILE``, or from where training had them.
"""
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from models.act.segmenter import PointSegmenter  # noqa: E402
from models.i2p_mae.clip_names import PREFIX, clip_in_file, clip_of  # noqa: E402 - the script's folder is on the path
from utils import checkpoint  # noqa: E402
from utils.command import run_command  # noqa: E402
from utils.errors import ConfigError, UserError  # noqa: E402
from utils.parser import ArgumentParser  # noqa: E402

FROZEN = ("dvae_tokenizer.", PREFIX)


def slim(content, path):
    """Return ``{"base_model", "notes"}`` of what was read of ``path``, without frozen models."""
    weights = {key: value for key, value in checkpoint.weights_in(content, path).items() if not key.startswith(FROZEN)}
    notes = content.get("notes", {})
    return {"base_model": weights, "notes": notes if isinstance(notes, dict) else {}}


def halve(result):
    """Return the slim copy with its floating-point weights in float16."""
    weights = {key: value.half() if value.is_floating_point() else value for key, value in result["base_model"].items()}
    for key, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ConfigError(f"'{key}' holds values that are too large for float16: leave --half out")
    return result | {"base_model": weights}


def published(content, path, clip=None):
    """Return the slim copy with what the published loaders want beside it."""
    result = slim(content, path)
    weights = result["base_model"]
    if any(key.startswith("convs3_cls.") for key in weights):
        return result | {PointSegmenter.published_key: weights}
    if any(key.startswith("h_decoder.") for key in weights):
        weights |= image_model(content, path, result["notes"], clip)
    return result


def image_model(content, path, notes, clip):
    """Return the weights of CLIP that belong to a pre-trained I2P-MAE, by their published names."""
    own = {key: value for key, value in checkpoint.weights_in(content, path).items() if key.startswith(PREFIX)}
    if own and clip is None:
        return own
    if clip is not None:
        found = clip_in_file(clip)
    else:
        try:
            found = clip_of(notes.get("model"))
        except ConfigError as error:
            raise ConfigError(f"{path} holds no image model, which the published code wants: give --clip FILE, "
                              f"OpenAI's weights of CLIP ({error})") from error
    return {PREFIX + key: value for key, value in found.items()}


def main():
    parser = ArgumentParser(description="Write a slim copy of a checkpoint: weights, but neither optimizer nor frozen "
                                        "models.")
    parser.add_argument("source", metavar="IN", help=".pth or .safetensors")
    parser.add_argument("target", metavar="OUT", help=".pth or .safetensors")
    parser.add_argument("--published", action="store_true", help="add what the published code's loaders want")
    parser.add_argument("--clip", metavar="FILE", help="with --published, CLIP's weights for a pre-trained I2P-MAE")
    parser.add_argument("--half", action="store_true", help="store weights in 16 bits; loaded, they are float32 again")
    args = parser.parse_args()
    source, target = pathlib.Path(args.source), pathlib.Path(args.target)
    if target.suffix not in (".pth", ".safetensors") or args.published and target.suffix != ".pth":
        raise ConfigError(f"{target} must end in .pth{'' if args.published else ' or .safetensors'}")
    if args.half and args.published:
        raise ConfigError("--half and --published contradict each other: the published code expects float32")
    if args.clip and not args.published:
        raise ConfigError("--clip is for --published")
    if target.resolve() == source.resolve():
        raise ConfigError(f"{target} is the file itself, whose optimizer would be lost: give another name")
    content = checkpoint.read(source)
    result = published(content, source, args.clip) if args.published else slim(content, source)
    result = halve(result) if args.half else result
    try:
        checkpoint.save(result, target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}") from error
    before, after = (path.stat().st_size / 1e6 for path in (source, target))
    print(f"{target}: {len(result['base_model'])} weights, {after:.1f} MB (from {before:.1f} MB)")


if __name__ == "__main__":
    run_command(main)
