"""Stage I, training a 3D autoencoder: ``python main_autoencoder.py --config FILE [--val | --test --ckpts FILE]``."""
from utils.command import run_command
from utils.parser import autoencoder_arguments


def main(argv=None):
    args = autoencoder_arguments(argv)
    from tools.tasks import autoencoding

    return autoencoding.run(args)


if __name__ == "__main__":
    run_command(main)
