"""How much there is to learn in an autoencoder's targets, and what a student has made of it."""
import dataclasses

import torch
from torch import Tensor

from models import ACT_PointDistillation, DiscreteVAE
from models.act.targets import constant_prediction, spread
from models.layers.patches import group
from models.losses import cosine_loss

FOURIER_FEATURES = 300
FREQUENCY = 2.0  # standard deviation of the frequencies: clouds fill the unit sphere
RIDGE = 3.0


@dataclasses.dataclass
class Patches:
    """What clouds (B, N, 3) become: ``center`` (B, G, 3) and features of patches (B, G, C) by name."""

    center: Tensor
    features: dict[str, Tensor]

    @classmethod
    def joined(cls, parts: list["Patches"]) -> "Patches":
        """Return the patches of all ``parts`` along the batch."""
        names = parts[0].features
        return cls(torch.cat([part.center for part in parts]),
                   {name: torch.cat([part.features[name] for part in parts]) for name in names})


def patches_of(model: ACT_PointDistillation | DiscreteVAE, points: Tensor) -> Patches:
    """Return the targets that clouds (B, N, 3) have by a teacher and, of a model of stage II, the student's features.

    Targets are those before and after ``dgcnn_2`` and, where ``teacher_layer`` asks for it, of that block. Their codes
    are those of the config; of stage I alone, soft.
    """
    student = model if isinstance(model, ACT_PointDistillation) else None
    teacher, codes = (student.dvae_tokenizer, student.teacher_codes) if student else (model, "soft")
    neighborhood, center = group(points, teacher.num_group, teacher.group_size)
    features = {"before dgcnn_2": teacher.teacher_features(neighborhood, center, codes, after_dgcnn2=False),
                "after dgcnn_2": teacher.teacher_features(neighborhood, center, codes)}
    if student:
        layer = student.teacher_target["layer"]
        if layer is not None:
            features[f"block {layer}"] = teacher.teacher_features(neighborhood, center, codes, layer=layer)
        tokens = student.ACT_encoder.tokens(neighborhood)
        features["student"] = student.ACT_encoder.encode(tokens, center)[0][:, 1:]
    return Patches(center, {name: value.float() for name, value in features.items()})


def asked_for(model: ACT_PointDistillation | DiscreteVAE) -> str:
    """Return the name, in ``patches_of``, of the target that a student learns; of stage I alone, the published one."""
    target = model.teacher_target if isinstance(model, ACT_PointDistillation) else {"after_dgcnn2": True, "layer": None}
    if target["layer"] is not None:
        return f"block {target['layer']}"
    return "after dgcnn_2" if target["after_dgcnn2"] else "before dgcnn_2"


def decompose(features: Tensor, center: Tensor) -> dict[str, float]:
    """Return what features (B, G, C) of patches with centres (B, G, 3) consist of.

    Returns a dict: ``energy in the mean``, ``between clouds`` and ``effective rank`` as ``models.act.targets.spread``
    has them; ``loss of the mean``, the cosine loss of predicting one vector for all; ``R² from centres``, how much of
    the variance over the second half of the clouds a regression on the centres, fitted to the first half, explains.
    """
    found = {name: value.item() for name, value in spread(features).items()}
    loss = cosine_loss(constant_prediction(features, "cosine").expand(features.shape), features).item()
    return {"energy in the mean": found["common"], "loss of the mean": loss, "between clouds": found["between"],
            "R² from centres": explained(features, center), "effective rank": found["rank"]}


def explained(features: Tensor, center: Tensor) -> float:
    """Return the R² of a ridge regression of features (B, G, C) on random Fourier features of centres (B, G, 3)."""
    half = len(features) // 2
    generator = torch.Generator().manual_seed(0)
    frequencies = FREQUENCY * torch.randn(3, FOURIER_FEATURES, generator=generator).to(center)
    phases = 2 * torch.pi * torch.rand(FOURIER_FEATURES, generator=generator).to(center)
    inputs = torch.cat([(center @ frequencies + phases).cos(), torch.ones_like(center[..., :1])], -1)  # B G F
    outputs = features - features[:half].mean((0, 1))
    x, y = (part[:half].flatten(0, 1).double() for part in (inputs, outputs))
    weights = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1], dtype=x.dtype, device=x.device), x.T @ y)
    x, y = (part[half:].flatten(0, 1).double() for part in (inputs, outputs))
    return 1 - ((y - x @ weights).square().sum() / y.square().sum()).item()


def principal_colours(features: Tensor) -> Tensor:
    """Return red, green and blue (B, G, 3), from 0 to 1: the first three principal components of (B, G, C).

    Each channel reaches from the component's 2nd to its 98th percentile.
    """
    flat = features.flatten(0, 1)
    flat = flat - flat.mean(0)
    _, _, directions = torch.linalg.svd(flat, full_matrices=False)  # at least three channels and tokens
    components = flat @ directions[:3].T  # BG 3
    low, high = torch.quantile(components, torch.tensor([0.02, 0.98], device=flat.device), dim=0)
    return ((components - low) / (high - low).clamp_min(1e-9)).clamp(0, 1).view(*features.shape[:2], 3)
