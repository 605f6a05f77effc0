"""Stage II, fine-tuning and testing: ``python main.py --config FILE [--finetune_model | --test --ckpts FILE]``."""
from utils.command import run_command
from utils.parser import main_arguments


def main(argv=None):
    args = main_arguments(argv)
    if args.test_svm:
        from tools.tasks import probing as task
    elif args.finetune_model or args.scratch_model or args.test:
        from tools.tasks import classification as task
    else:
        from tools.tasks import pretraining as task
    return task.run(args)


if __name__ == "__main__":
    run_command(main)
