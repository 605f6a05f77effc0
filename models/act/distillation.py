"""Stage II of ACT: a masked 3D student learns the frozen autoencoder's features."""
import warnings
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import nn

from models.act.point_encoder import PointEncoder, pool
from models.act.student import Student
from models.act.targets import cloud_target, constant_prediction, spread, standardise
from models.act.teacher import Teacher, build_teacher, upgrade_teacher
from models.build import MODELS
from models.interface import Loadable
from models.layers.init import init_truncated_normal, init_xavier
from models.layers.patches import gather, group, position_mlp
from models.layers.transformer import TransformerDecoder
from models.losses import DISTILLATION_LOSSES
from models.masking import MASKS, make_mask
from utils.distributed import std_all
from utils.errors import ConfigError
from utils.key_types import Because, FractionBelowOne, NonNegativeFloat, NonNegativeInt, OneOf, PositiveInt


class MaskedStudent(Student):
    """``model.transformer_config`` of masked distillation.

    Keys:
        mask_ratio: of the patches, masked; at 0 all are seen and predicted.
        mask_type: patches are masked at random (``rand``) or around a random one (``block``).
        proj: maps the decoder's output to the target: ``linear``, ``conv`` or ``none``.
        replace_pob: Point-BERT's, which published files give.
        decoder_depth: blocks of the decoder.
        decoder_num_heads: heads of attention of the decoder.
        cls_loss: decodes a second time, from the class token and the tokens after block ``register_shallow_hook``.
        register_shallow_hook: the number of that block, from 0.
    """

    mask_ratio: FractionBelowOne = 0.8
    mask_type: Annotated[str, OneOf(MASKS)] = "rand"
    proj: Literal["linear", "conv", "none"] = "linear"
    replace_pob: Annotated[float, Ge(0), Le(0), Because("masked distillation replaces no tokens")] = 0.0
    decoder_depth: NonNegativeInt = 2
    decoder_num_heads: PositiveInt = 6
    cls_loss: bool = False
    register_shallow_hook: NonNegativeInt = 9


class MaskTransformer(PointEncoder):
    """The student's encoder (``transformer_config``), with the two heads that released checkpoints carry unused."""

    def __init__(self, *, num_tokens, embed_dim, encoder_dims, depth, num_heads, drop_path_rate, cls_dim):
        super().__init__(embed_dim=embed_dim, encoder_dims=encoder_dims, depth=depth, num_heads=num_heads,
                         drop_path_rate=drop_path_rate)
        self.lm_head = nn.Linear(embed_dim, num_tokens)
        self.cls_head = nn.Sequential(nn.Linear(embed_dim, cls_dim), nn.GELU(), nn.Linear(cls_dim, cls_dim))
        self.apply(init_truncated_normal)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.cls_pos, std=0.02)


@MODELS.register
class ACT_PointDistillation(Loadable):
    """Masked distillation (ACT, section 4.2).

    Keys:
        loss: ``cosine``, ``l2``, ``smoothl1``, ``ntxent`` or ``barlowtwins``.
        target_norm: ``none`` (as published) or ``standardise``, every channel of the targets over the batch's patches.
        cloud_loss: weight of a second loss of the same kind: from the visible patches alone, without the positions of
            the others, a linear head predicts the standardised mean ‖ maximum of the cloud's targets. 0, as published.
        transformer_config: the student, masking and decoding.
        dvae_config: the teacher, and what of it is the target.
    """

    # a file may lack the teacher, which then stays what ``dvae_config.ckpt`` made it
    optional_weights = ("dvae_tokenizer.",)
    weight_names = {"decoder_cls_pos": "cls_pos"}  # what the first version called it
    # heads that released checkpoints carry
    unused_parameters = ("ACT_encoder.lm_head.", "ACT_encoder.cls_head.")
    train_transforms = ("ScaleAndTranslate",)

    def __init__(self, *, loss: Annotated[str, OneOf(DISTILLATION_LOSSES)] = "cosine",
                 target_norm: Literal["none", "standardise"] = "none", cloud_loss: NonNegativeFloat = 0.0,
                 transformer_config: MaskedStudent, dvae_config: Teacher) -> None:
        super().__init__()
        student, hook = transformer_config.encoder(), transformer_config.register_shallow_hook
        if transformer_config.cls_loss and hook >= student["depth"]:
            raise ConfigError(f"model.transformer_config.register_shallow_hook is {hook}, but the student's blocks are "
                              f"0 … {student['depth'] - 1}")
        self.loss, self.loss_name = DISTILLATION_LOSSES[loss], loss
        self.standardise, self.cloud_loss = target_norm == "standardise", cloud_loss
        self.masking = transformer_config.keywords()
        self.teacher_codes, self.teacher_mode = dvae_config.teacher_codes, dvae_config.teacher_mode
        self.teacher_target = {"after_dgcnn2": dvae_config.teacher_target == "after_dgcnn2",
                               "layer": dvae_config.teacher_layer}
        self.dvae_tokenizer = build_teacher(dvae_config)
        teacher = self.dvae_tokenizer
        self.group_size, self.num_group = teacher.group_size, teacher.num_group

        width, encoder_dims = student["embed_dim"], dvae_config.autoencoder["encoder_dims"]
        if transformer_config.encoder_dims not in (None, encoder_dims):
            warnings.warn(f"model.transformer_config.encoder_dims is not used: the student's patch encoder is as wide "
                          f"as the teacher's ({encoder_dims})", stacklevel=2)
        target = teacher.target_width(**self.teacher_target)
        self.ACT_encoder = MaskTransformer(num_tokens=teacher.num_tokens, encoder_dims=encoder_dims, **student)
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02))
        self.decoder_pos_embed = position_mlp(width)
        self.ACT_decoder = TransformerDecoder(
            width, self.masking["decoder_depth"], self.masking["decoder_num_heads"], student["drop_path_rate"])
        self.proj_head = build_projection(self.masking["proj"], width, target)
        if self.masking["cls_loss"]:
            self.cls_pos = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02))
        self.decoder_pos_embed.apply(init_truncated_normal)
        if cloud_loss:
            self.cloud_head = nn.Linear(2 * width, 2 * target)
            self.cloud_head.apply(init_truncated_normal)
        self.proj_head.apply(init_truncated_normal)
        self.ACT_decoder.apply(init_xavier)

    def upgrade_weights(self, weights):
        return upgrade_teacher(self.dvae_tokenizer, weights)

    def train(self, mode=True):
        """Switch the student's mode; the teacher stays in evaluation mode unless ``teacher_mode`` is ``train``."""
        super().train(mode)
        self.dvae_tokenizer.train(mode and self.teacher_mode == "train")
        return self

    def forward(self, points, mask=None):
        """Predict the teacher's features of masked patches of clouds (B, N, 3).

        ``mask`` (B, G) bool, True where masked, the same number in every row, replaces the random one.

        Returns a dict: ``loss``; the losses that it is the sum of, where there are several: ``token_loss`` and, times
        its weight, ``cloud_loss``; ``target_std``, the standard deviation of the targets over patches and clouds,
        averaged over channels; ``encoder_visible`` (B, V, C). In training also ``mean_loss``, the token loss of
        predicting the mean target for every patch, to which a student falls that learns nothing else; ``target_…``
        and ``student_…``, how the teacher's features and the visible tokens spread (see ``targets.spread``).
        """
        neighborhood, center = group(points, self.num_group, self.group_size)
        if mask is None:
            mask = make_mask(self.masking["mask_type"], center, self.masking["mask_ratio"])
        with torch.no_grad():
            teacher_feature = self.dvae_tokenizer.teacher_features(
                neighborhood, center, self.teacher_codes, **self.teacher_target)  # B G C
        target = standardise(teacher_feature) if self.standardise else teacher_feature
        order = mask.int().argsort(dim=1, stable=True)  # B G, visible patches first
        count = int((~mask[0]).sum())
        target, center = gather(target, order), gather(center, order)

        hook = self.masking["register_shallow_hook"]
        tokens = gather(self.ACT_encoder.tokens(neighborhood), order[:, :count])  # B V C
        x, tapped = self.ACT_encoder.encode(tokens, center[:, :count], (hook,))
        visible = x[:, 1:]
        pos = self.decoder_pos_embed(center)  # B G C
        loss = self.decode(visible, pos, target)
        out = {"encoder_visible": visible, "target_std": std_all(teacher_feature.float().flatten(0, 1)).mean()}
        if self.training:
            out |= {"mean_loss": self.mean_loss(target, center.shape[1] - count),
                    **{f"target_{name}": value for name, value in spread(teacher_feature).items()},
                    **{f"student_{name}": value for name, value in spread(visible.detach()).items()}}
        if self.masking["cls_loss"]:
            out["token_loss"] = loss
            front = torch.cat([x[:, :1], tapped[hook][:, 1:]], 1)
            pos = torch.cat([self.cls_pos.expand(len(x), -1, -1), pos], 1)
            loss = loss + self.decode(front, pos, target)
        if self.cloud_loss:
            out.setdefault("token_loss", loss)
            out["cloud_loss"] = self.loss(self.cloud_head(pool(x)).unsqueeze(1), cloud_target(target))
            loss = loss + self.cloud_loss * out["cloud_loss"]
        return {"loss": loss, **out}

    def decode(self, front, pos, target):
        """Fill ``front`` up with mask tokens to the length of ``pos`` and compare what becomes of them."""
        masked = pos.shape[1] - front.shape[1]
        count = self.compared(target, masked)
        x = torch.cat([front, self.mask_token.expand(len(front), masked, -1)], 1)
        return self.loss(self.proj_head(self.ACT_decoder(x, pos, count)), target[:, -count:])

    def compared(self, target, masked):
        """Return how many patches, the last ones, are compared: those masked, or all if asked for or none is."""
        return target.shape[1] if masked == 0 or self.masking["return_all_tokens"] else masked

    @torch.no_grad()
    def mean_loss(self, target, masked):
        """Return the least loss of predicting the same for every patch that is compared."""
        target = target[:, -self.compared(target, masked):]
        return self.loss(constant_prediction(target, self.loss_name).expand(target.shape), target)

    def forward_features(self, points):
        """Return the student's features (B, 2C) of whole clouds (B, N, 3), for a probe."""
        return self.ACT_encoder.features(*group(points, self.num_group, self.group_size))


class Pointwise(nn.Conv1d):
    """A kernel-1 convolution over tokens (B, N, C)."""

    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def build_projection(kind, width, target):
    """Return the head from the decoder's ``width`` to the target's: ``linear``, ``conv`` or ``none``."""
    heads = {"linear": lambda: nn.Linear(width, target), "conv": lambda: Pointwise(width, target, 1),
             "none": nn.Identity}
    if kind == "none" and width != target:
        raise ConfigError(f"model.transformer_config.proj 'none' needs embed_dim ({width}) to be the target's width "
                          f"({target})")
    return heads[kind]()
