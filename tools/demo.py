"""Both stages, probes and fine-tuning on the embedded shapes, by the commands that a user would type: ``make demo``."""
import pathlib
import re
import shlex
import subprocess
import sys
import threading
import time

import trimesh

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from utils.parser import ArgumentParser, natural  # noqa: E402
from utils.plots.clouds import demo_picture  # noqa: E402
from utils.tables import align  # noqa: E402 - the script's folder is on the path, the project's is not

WORK = pathlib.Path("work_dirs")
STAGE_I = WORK / "autoencoder" / "demo" / "stage1"
STAGE_II = WORK / "pretrain" / "demo" / "stage2"
FINETUNED, SCRATCH = (WORK / "finetune" / "demo" / name for name in ("finetuned", "scratch"))
PROBED, UNTRAINED = (WORK / "pretrain" / "demo" / name for name in ("probed", "untrained"))
PICTURE = WORK / "demo.png"
DRAWN_SHAPES = ("airplane", "chair", "lamp")
CLOUDS = 28_000  # of stage I take as long as the whole demo


def command(text):
    """Echo and run ``python <text>`` from the project's folder; a failure ends the demo with its status."""
    print(f"\n$ python {text}", flush=True)
    status = subprocess.run([sys.executable, *shlex.split(text)], cwd=ROOT, check=False).returncode
    if status:
        sys.exit(status)


def estimate(start):
    """Print how long the demo takes on this machine, once stage I has logged the speed of its first epoch."""
    log, rate = ROOT / STAGE_I / "log.txt", None
    while not rate:
        time.sleep(1)
        if log.is_file() and log.stat().st_mtime > start:
            rate = re.search(r"Epoch 0/.* (\d+) clouds/s", log.read_text().rpartition("Experiment")[2])
    minutes = CLOUDS / max(int(rate[1]), 1) / 60
    print(f"On this machine the demo takes about {minutes:.0f} minutes.", flush=True)


def logged(folder, pattern, since="Before training"):
    """Return the numbers that ``pattern`` captures in the log of ``folder``, after the last line with ``since``."""
    text = (ROOT / folder / "log.txt").read_text().rpartition(since)[2]
    return [float(value) for value in re.findall(pattern, text)]


def results():
    """Return the demo's table as rows of texts."""
    rows = [["", "before", "after"]]
    for title, pattern in (("coarse", r"CDL1-coarse ([\d.]+)"), ("fine", r"CDL1 ([\d.]+)")):
        values = logged(STAGE_I, pattern)
        rows.append([f"Stage I    reconstruction, CD-L1 x 1000, {title}", f"{values[0]:.1f}", f"{values[-1]:.1f}"])
    recon, shuffled = (logged(STAGE_I, rf"{name} ([\d.]+)") for name in ("recon", "recon-shuffled"))
    carried = [f"{100 * (1 - one / other):.1f}" for one, other in zip(recon, shuffled, strict=True)]
    rows += [["Stage I    carried by the codes, % of the reconstruction loss", carried[0], carried[-1]],
             ["", "untrained", "pre-trained"]]
    for name in ("Linear SVM", "k nearest neighbours"):
        values = [logged(folder, rf"{name} +OA ([\d.]+)", "Experiment")[-1] for folder in (UNTRAINED, PROBED)]
        rows.append([f"Stage II   {name} on frozen features, %", *(f"{value:.1f}" for value in values)])
    scratch, finetuned = (logged(folder, r"Last +OA ([\d.]+)")[-1] for folder in (SCRATCH, FINETUNED))
    return [*rows, ["", "scratch", "pre-trained"],
            ["Fine-tuning with five clouds a class, %", f"{scratch:.1f}", f"{finetuned:.1f}"]]


def embeddings(config, checkpoints):
    """Return t-SNE maps (M, 2) of the test clouds' features by each of ``checkpoints``, and their labels."""
    import torch
    from sklearn.manifold import TSNE

    from models.pretrained import build_pretrained
    from tools.visualize import Clouds
    from utils import checkpoint
    from utils.config import load_config

    config_read, found = load_config(config), {}
    clouds = Clouds(config_read, config, None, "cpu")
    for title, path in checkpoints.items():
        torch.manual_seed(0)
        content = checkpoint.read(path) if path else None
        model = build_pretrained(dict(config_read.model), content, path, head=False)
        with torch.inference_mode():
            features = torch.cat([model.forward_features(points) for points in clouds.batches()]).numpy()
        scaled = (features - features.mean(0)) / (features.std(0) + 1e-6)
        # 16 clouds a class: a larger perplexity would ask for neighbours of other classes
        found[title] = TSNE(random_state=0, init="pca", perplexity=10, metric="cosine").fit_transform(scaled)
    return found, clouds.labels


def draw():
    """Draw three reconstructions, both stages' losses, and the features before and after pre-training."""
    folders = [next((ROOT / STAGE_I / "reconstructions").glob(f"{name}_*/")) for name in DRAWN_SHAPES]
    clouds = [(name, *(trimesh.load(folder / f"{part}.ply").vertices for part in ("input", "coarse", "fine")))
              for name, folder in zip(DRAWN_SHAPES, folders, strict=True)]
    curve = {name: list(enumerate(logged(folder, rf"Epoch \d+/\d+ .*?\b{name} ([\d.]+)"))) for name, folder in (
        ("recon_loss", STAGE_I), ("token_loss", STAGE_II), ("mean_loss", STAGE_II))}
    curves = {"Stage I, reconstruction": {"loss": curve["recon_loss"]},
              "Stage II, loss of patches": {"student": curve["token_loss"], "predicting the mean": curve["mean_loss"]}}
    maps, labels = embeddings(ROOT / "cfgs/demo/pretrain.yaml", {
        "Features, untrained": None, "Features, pre-trained": ROOT / STAGE_II / "ckpt-last.pth"})
    demo_picture(ROOT / PICTURE, clouds, curves, maps, labels)


def main():
    parser = ArgumentParser(description="Run both stages and fine-tuning on the embedded shapes.")
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="seed of every command")
    seed, start = f"--seed {parser.parse_args().seed}", time.time()
    threading.Thread(target=estimate, args=(start,), daemon=True).start()
    autoencoder, pretrain, finetune = (f"cfgs/demo/{name}.yaml" for name in ("autoencoder", "pretrain", "finetune"))
    command(f"main_autoencoder.py --config {autoencoder} --exp_name stage1 {seed} --val_freq 99")
    command(f"main_autoencoder.py --config {autoencoder} --exp_name stage1 --test --ckpts {STAGE_I}/ckpt-last.pth")
    command(f"main.py --config {pretrain} --exp_name stage2 {seed} --val_freq 99")
    student = f"--ckpts {STAGE_II}/ckpt-last.pth"
    command(f"main.py --config {pretrain} --exp_name untrained {seed} --test_svm --scratch_model")
    command(f"main.py --config {pretrain} --exp_name probed {seed} --test_svm {student}")
    command(f"main.py --config {finetune} --exp_name scratch {seed} --val_freq 99 --scratch_model")
    command(f"main.py --config {finetune} --exp_name finetuned {seed} --val_freq 99 --finetune_model {student}")
    draw()
    print(f"\n{align(results())}\n\nPicture: {PICTURE}   Time: {(time.time() - start) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
