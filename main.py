"""Stage II, fine-tuning and testing: ``python main.py --config FILE [--finetune_model | --test --ckpts FILE]``."""
from utils.command import run_command
from utils.parser import main_arguments


def main(argv=None):
    args = main_arguments(argv)
    if args.test_svm:
        from tools import runner_probe as runner
    elif args.finetune_model or args.scratch_model or args.test:
        from tools import runner_finetune as runner
    else:
        from tools import runner_pretrain as runner
    return runner.run(args)


if __name__ == "__main__":
    run_command(main)
