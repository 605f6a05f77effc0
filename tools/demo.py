"""Both stages and fine-tuning on the embedded shapes, by the commands that a user would type: ``make demo``."""
import pathlib
import re
import shlex
import subprocess
import sys
import time

import trimesh

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from utils.metrics import align  # noqa: E402 - the script's folder is on the path, the project's is not
from utils.pictures import demo_picture  # noqa: E402

WORK = pathlib.Path("work_dirs")
STAGE_I = WORK / "autoencoder" / "demo" / "stage1"
STAGE_II = WORK / "pretrain" / "demo" / "stage2"
FINETUNED, SCRATCH = (WORK / "finetune" / "demo" / name for name in ("finetuned", "scratch"))
PICTURE = WORK / "demo.png"
SHOWN = ("airplane", "chair", "lamp")


def command(text):
    """Echo and run ``python <text>`` from the project's folder; a failure ends the demo with its status."""
    print(f"\n$ python {text}", flush=True)
    status = subprocess.run([sys.executable, *shlex.split(text)], cwd=ROOT, check=False).returncode
    if status:
        sys.exit(status)


def logged(folder, pattern):
    """Return the numbers that ``pattern`` captures in the log of the last training in ``folder``."""
    text = (ROOT / folder / "log.txt").read_text().rpartition("Before training")[2]
    return [float(value) for value in re.findall(pattern, text)]


def results():
    """Return the demo's table as rows of texts."""
    coarse = logged(STAGE_I, r"CDL1-coarse ([\d.]+)")
    fine = logged(STAGE_I, r"CDL1 ([\d.]+)")
    svm = logged(STAGE_II, r"SVM ([\d.]+)")
    scratch, finetuned = (logged(folder, r"Last +OA ([\d.]+)")[-1] for folder in (SCRATCH, FINETUNED))
    return [
        ["", "before", "after"],
        ["Stage I    reconstruction, CD-L1 x 1000, coarse", f"{coarse[0]:.1f}", f"{coarse[-1]:.1f}"],
        ["Stage I    reconstruction, CD-L1 x 1000, fine", f"{fine[0]:.1f}", f"{fine[-1]:.1f}"],
        ["Stage II   linear SVM on frozen features, %", f"{svm[0]:.1f}", f"{svm[-1]:.1f}"],
        ["", "scratch", "pretrained"],
        ["Fine-tuning with few samples, %", f"{scratch:.1f}", f"{finetuned:.1f}"],
    ]


def draw():
    """Draw three reconstructions and both stages' losses."""
    folders = [next((ROOT / STAGE_I / "reconstructions").glob(f"{name}_*/")) for name in SHOWN]
    clouds = [(name, *(trimesh.load(folder / f"{part}.ply").vertices for part in ("input", "coarse", "fine")))
              for name, folder in zip(SHOWN, folders, strict=True)]
    curves = {title: list(enumerate(logged(folder, r"Epoch \d+/\d+  loss ([\d.]+)")))
              for title, folder in (("Stage I, loss", STAGE_I), ("Stage II, loss", STAGE_II))}
    demo_picture(ROOT / PICTURE, clouds, curves)


def main():
    start = time.monotonic()
    command("main_autoencoder.py --config cfgs/demo/autoencoder.yaml --exp_name stage1")
    command(f"main_autoencoder.py --config cfgs/demo/autoencoder.yaml --exp_name stage1 --test "
            f"--ckpts {STAGE_I}/ckpt-best.pth")
    command("main.py --config cfgs/demo/pretrain.yaml --exp_name stage2")
    command(f"main.py --config cfgs/demo/finetune.yaml --exp_name finetuned --val_freq 10 "
            f"--finetune_model --ckpts {STAGE_II}/ckpt-last.pth")
    command("main.py --config cfgs/demo/finetune.yaml --exp_name scratch --val_freq 10 --scratch_model")
    draw()
    print(f"\n{align(results())}\n\nPicture: {PICTURE}   Time: {(time.monotonic() - start) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
