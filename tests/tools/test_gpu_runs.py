"""Every stage on a GPU, in each precision."""
import re

import pytest
import torch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
@pytest.mark.parametrize("stage", ["autoencoder", "pretrain", "finetune"])
def test_learning_is_that_of_the_cpu(command, stage, amp):
    losses = []
    for device, precision in (("cpu", "off"), ("cuda", amp)):
        flags = ("--scratch_model",) if stage == "finetune" else ()
        out = command(stage, *flags, "--exp_name", device, "--device", device, "--amp", precision, "--val_freq", "9",
                      "--set", "max_epoch=5", "dataset.train.others.size=120", "optimizer.kwargs.lr=0.0005").out
        losses.append(float(re.search(r"Epoch 5/5  loss ([\d.]+)", out).group(1)))
    assert losses[1] == pytest.approx(losses[0], rel=0.1)  # the random numbers are others


def test_compiled(command):
    out = command("finetune", "--scratch_model", "--device", "cuda", "--compile", "--amp", "bf16").out
    assert "Last        OA" in out
