"""Stage II of ACT: a masked 3D student learns the frozen autoencoder's features."""
import math
import warnings

import torch
from torch import nn

from models.act.point_encoder import PointEncoder, pool
from models.act.prompted_dvae import without_weights
from models.act.targets import cloud_target, constant_prediction, spread, standardise
from models.build import MODELS, build_model_from_cfg
from models.interface import Loadable
from models.layers.init import init_truncated_normal, init_xavier
from models.layers.patches import gather, group, position_mlp
from models.layers.transformer import TransformerDecoder
from models.losses import distillation_loss
from models.masking import make_mask
from utils.checkpoint import load_model, read_weights
from utils.distributed import std_all
from utils.errors import ConfigError
from utils.registry import check_keys, check_number


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
        transformer_config: the student; see ``student_keys``.
        dvae_config: the keys of the teacher, an ACTPromptedDiscreteVAEwithVIT unless ``NAME`` says otherwise;
            ``ckpt``, a stage-I checkpoint, without which the teacher is untrained; ``teacher_codes`` (``gumbel``
            samples the codes as published, ``argmax``, or ``soft``: the codebook's rows mixed by their
            probabilities); ``teacher_mode`` (``eval``; ``train`` keeps batch statistics and dropout on, as the
            published code does); ``teacher_target`` (``after_dgcnn2``, or ``before_dgcnn2``: what the foundation
            model gives); ``teacher_layer``, a block of the foundation model (from 0) whose output is the target
            instead.
    """

    # a file may lack the teacher, which then stays what ``dvae_config.ckpt`` made it
    optional_weights = ("dvae_tokenizer.",)
    weight_names = {"decoder_cls_pos": "cls_pos"}  # what the first version called it
    # heads that released checkpoints carry
    unused_parameters = ("ACT_encoder.lm_head.", "ACT_encoder.cls_head.")

    def __init__(self, *, loss="cosine", target_norm="none", cloud_loss=0, transformer_config, dvae_config):
        super().__init__()
        self.loss, self.loss_name = distillation_loss(loss), loss
        if target_norm not in ("none", "standardise"):
            raise ConfigError(f"model.target_norm '{target_norm}' is not one of none, standardise")
        check_number(0, math.inf, cloud_loss=cloud_loss)
        self.standardise, self.cloud_loss = target_norm == "standardise", cloud_loss
        check_keys(student_keys, transformer_config, "model.transformer_config")
        student, self.masking = student_keys(**transformer_config)
        self.teacher_codes = _choice(dvae_config, "teacher_codes", ("gumbel", "argmax", "soft"))
        self.teacher_mode = _choice(dvae_config, "teacher_mode", ("eval", "train"))
        target = _choice(dvae_config, "teacher_target", ("after_dgcnn2", "before_dgcnn2"))
        self.teacher_target = {"after_dgcnn2": target == "after_dgcnn2", "layer": dvae_config.get("teacher_layer")}
        self.dvae_tokenizer = build_teacher(dvae_config)
        teacher = self.dvae_tokenizer
        self.group_size, self.num_group = teacher.group_size, teacher.num_group

        width = student["embed_dim"]
        if transformer_config.get("encoder_dims", dvae_config["encoder_dims"]) != dvae_config["encoder_dims"]:
            warnings.warn(f"model.transformer_config.encoder_dims is not used: the student's patch encoder is as wide "
                          f"as the teacher's ({dvae_config['encoder_dims']})", stacklevel=2)
        target = teacher.target_width(**self.teacher_target)
        self.ACT_encoder = MaskTransformer(num_tokens=teacher.num_tokens, encoder_dims=dvae_config["encoder_dims"],
                                           **student)
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


def student_keys(*, mask_ratio=0.8, mask_type="rand", proj="linear", embed_dim=384, encoder_dims=384, depth=12,
                 drop_path_rate=0.1, cls_dim=512, replace_pob=0, num_heads=6, decoder_depth=2, decoder_num_heads=6,
                 return_all_tokens=False, cls_loss=False, register_shallow_hook=9):
    """Split the keys of ``transformer_config`` into those of the encoder and those of masking and decoding.

    ``mask_ratio`` of the patches is masked, at random (``mask_type: rand``) or around a random one (``block``); at 0
    all are seen and predicted. ``proj`` maps the decoder's output to the target: ``linear``, ``conv`` or ``none``.
    ``return_all_tokens`` compares visible patches too. ``cls_loss`` decodes a second time from the class token and
    the tokens after block ``register_shallow_hook`` (from 0). ``encoder_dims`` is there because published files give
    it; the student's patch encoder is as wide as the teacher's, whatever it says.
    """
    if not 0 <= mask_ratio < 1:
        raise ConfigError(f"model.transformer_config.mask_ratio is {mask_ratio}; it must be at least 0 and below 1")
    if replace_pob:
        raise ConfigError("model.transformer_config.replace_pob must be 0: masked distillation replaces no tokens")
    if cls_loss and not 0 <= register_shallow_hook < depth:
        raise ConfigError(f"model.transformer_config.register_shallow_hook is {register_shallow_hook}, but the "
                          f"student's blocks are 0 … {depth - 1}")
    encoder = {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads, "drop_path_rate": drop_path_rate,
               "cls_dim": cls_dim}
    masking = {"mask_ratio": mask_ratio, "mask_type": mask_type, "proj": proj, "decoder_depth": decoder_depth,
               "decoder_num_heads": decoder_num_heads, "return_all_tokens": return_all_tokens, "cls_loss": cls_loss,
               "register_shallow_hook": register_shallow_hook}
    return encoder, masking


def build_teacher(config):
    """Build the frozen stage-I autoencoder of ``dvae_config`` and load its checkpoint."""
    keys = {"NAME": "ACTPromptedDiscreteVAEwithVIT", **config}
    path = keys.pop("ckpt", None)
    for key in ("teacher_codes", "teacher_mode", "teacher_target", "teacher_layer"):
        keys.pop(key, None)
    if path and "visual_embed_type" in keys:  # the checkpoint holds the foundation Transformer too
        keys |= without_weights(keys)
    teacher = build_model_from_cfg(keys, "model.dvae_config")
    if path:
        load_model(teacher, read_weights(path), path)
    else:
        warnings.warn("model.dvae_config.ckpt is not given: the teacher is untrained", stacklevel=2)
    return teacher.requires_grad_(False)


def upgrade_teacher(teacher, weights):
    """Return a file's weights, those of ``dvae_tokenizer`` as ``teacher`` writes them today."""
    prefix = "dvae_tokenizer."
    inner = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    return {**{key: value for key, value in weights.items() if not key.startswith(prefix)},
            **{prefix + key: value for key, value in teacher.upgrade_weights(inner).items()}}


class Pointwise(nn.Conv1d):
    """A kernel-1 convolution over tokens (B, N, C)."""

    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def build_projection(kind, width, target):
    """Return the head from the decoder's ``width`` to the target's: ``linear``, ``conv`` or ``none``."""
    heads = {"linear": lambda: nn.Linear(width, target), "conv": lambda: Pointwise(width, target, 1),
             "none": nn.Identity}
    if kind not in heads:
        raise ConfigError(f"model.transformer_config.proj '{kind}' is not one of {', '.join(heads)}")
    if kind == "none" and width != target:
        raise ConfigError(f"model.transformer_config.proj 'none' needs embed_dim ({width}) to be the target's width "
                          f"({target})")
    return heads[kind]()


def _choice(config, key, choices):
    value = config.get(key, choices[0])
    if value not in choices:
        raise ConfigError(f"model.dvae_config.{key} '{value}' is not one of {', '.join(choices)}")
    return value
