"""Write a slim copy of a checkpoint: ``python tools/convert_checkpoint.py IN OUT`` (.pth or .safetensors).

Left out are the optimizer, what resuming needs, and the frozen teacher of stage II. The copy is read everywhere a
checkpoint is, the published code included (as .pth).
"""
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from utils import checkpoint  # noqa: E402 - the script's folder is on the path, the project's is not
from utils.command import run_command  # noqa: E402
from utils.errors import ConfigError, UserError  # noqa: E402
from utils.parser import ArgumentParser  # noqa: E402

TEACHER = "dvae_tokenizer."


def slim(content, path):
    """Return ``{"base_model", "notes"}`` of what was read of ``path``, without a teacher."""
    weights = {key: value for key, value in checkpoint.weights_in(content, path).items() if not key.startswith(TEACHER)}
    notes = content.get("notes", {})
    return {"base_model": weights, "notes": notes if isinstance(notes, dict) else {}}


def main():
    parser = ArgumentParser(description="Write a slim copy of a checkpoint: weights, but neither optimizer "
                                                 "nor teacher.")
    parser.add_argument("source", metavar="IN", help=".pth or .safetensors")
    parser.add_argument("target", metavar="OUT", help=".pth or .safetensors")
    args = parser.parse_args()
    source, target = pathlib.Path(args.source), pathlib.Path(args.target)
    if target.suffix not in (".pth", ".safetensors"):
        raise ConfigError(f"{target} must end in .pth or .safetensors")
    if target.resolve() == source.resolve():
        raise ConfigError(f"{target} is the file itself, whose optimizer would be lost: give another name")
    result = slim(checkpoint.read(source), source)
    try:
        checkpoint.save(result, target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}") from error
    before, after = (path.stat().st_size / 1e6 for path in (source, target))
    print(f"{target}: {len(result['base_model'])} weights, {after:.1f} MB (from {before:.1f} MB)")


if __name__ == "__main__":
    run_command(main)
