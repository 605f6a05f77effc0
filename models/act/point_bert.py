"""Point-BERT's pretraining (Yu et al. 2022): the codes of masked patches are predicted."""
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Len
from torch import nn

from models.act.distillation import MaskTransformer
from models.act.student import Student
from models.act.teacher import Tokenizer, build_teacher, upgrade_teacher
from models.build import MODELS
from models.interface import Loadable
from models.layers.patches import gather, group
from utils.distributed import gather_batch, mean_all
from utils.errors import ConfigError
from utils.key_types import Because, Fraction, Listed, PositiveFloat, PositiveInt, ProperFraction

LowestAndHighest = Annotated[Listed[ProperFraction], Len(2, 2), Because("the lowest and the highest share")]


class TokenStudent(Student):
    """``model.transformer_config`` of Point-BERT.

    Keys:
        mask_ratio: the lowest and the highest share of the patches in the masked block, or one for both.
        replace_pob: the share of the other patches that are replaced by patches of other clouds.
        dvae_loss: predicts the codes of masked patches.
        cutmix_loss: predicts the codes of clouds mixed of two.
        moco_loss: tells clouds apart, by a queue (He et al. 2020).
    """

    mask_ratio: ProperFraction | LowestAndHighest = (0.25, 0.45)
    replace_pob: Fraction = 0.0
    dvae_loss: bool = True
    cutmix_loss: bool = True
    moco_loss: bool = False


@MODELS.register
class ACT_PointBERT(Loadable):
    """Masked discrete tokens, with MoCo's queue and cut-mix, after a frozen autoencoder as tokenizer.

    Keys:
        transformer_config: the student, masking and losses.
        dvae_config: the tokenizer.
        m: for ``moco_loss``, the momentum of the key encoder.
        T: for ``moco_loss``, the temperature.
        K: for ``moco_loss``, the length of the queue.
    """

    optional_weights = ("dvae_tokenizer.",)
    weight_names = {"dvae.": "dvae_tokenizer."}  # what Point-BERT and the published code call it
    replicated_buffers = ("queue",)
    train_transforms = ("ScaleAndTranslate",)

    def __init__(self, *, m: Fraction = 0.999, T: PositiveFloat = 0.07, K: PositiveInt = 16384,
                 transformer_config: TokenStudent, dvae_config: Tokenizer) -> None:
        super().__init__()
        check_student(transformer_config)
        student, self.keys = transformer_config.encoder(), transformer_config.keywords()
        self.momentum, self.temperature, self.length = m, T, K
        self.dvae_tokenizer = build_teacher(dvae_config)
        self.group_size, self.num_group = self.dvae_tokenizer.group_size, self.dvae_tokenizer.num_group
        student |= {"num_tokens": self.dvae_tokenizer.num_tokens,
                    "encoder_dims": dvae_config.autoencoder["encoder_dims"]}
        self.transformer_q = TokenTransformer(**student)
        used = {"lm_head": self.keys["dvae_loss"] or self.keys["cutmix_loss"], "cls_head": self.keys["moco_loss"]}
        self.unused_parameters = tuple(f"transformer_q.{name}." for name, needed in used.items() if not needed)
        if self.keys["moco_loss"]:
            self.transformer_k = TokenTransformer(**student).requires_grad_(False)
            self.transformer_k.load_state_dict(self.transformer_q.state_dict())
            self.register_buffer("queue", F.normalize(torch.randn(student["cls_dim"], K), dim=0))
            self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    @property
    def unused_weights(self):
        """Published files hold the key encoder and its queue, which are needed for ``moco_loss`` alone."""
        return () if self.keys["moco_loss"] else (r"transformer_k\.", "queue")

    def upgrade_weights(self, weights):
        return upgrade_teacher(self.dvae_tokenizer, weights)

    def train(self, mode=True):
        """Switch the mode; the tokenizer stays in evaluation mode."""
        super().train(mode)
        self.dvae_tokenizer.eval()
        return self

    def forward(self, points):
        """Predict the codes of masked patches of clouds (B, N, 3).

        Returns a dict: ``loss``, the sum of the others; ``dvae_loss``, cross-entropy of the codes of masked patches;
        ``cutmix_loss``, the same for clouds mixed of two; ``moco_loss``; ``acc``, the percentage of codes that are
        right; ``perplexity`` of the codes.
        """
        neighborhood, center = group(points, self.num_group, self.group_size)
        with torch.no_grad():
            codes = self.dvae_tokenizer.codes(neighborhood, center)  # B G
        out = {"perplexity": self.dvae_tokenizer.perplexity(gather_batch(codes))}
        cls, logits, hidden = self.transformer_q.predict(neighborhood, center, self.keys)
        if self.keys["dvae_loss"]:
            out["dvae_loss"] = code_loss(logits, codes, hidden)
        key = self.next_key(neighborhood, center) if self.keys["moco_loss"] else None
        if key is not None:
            out["moco_loss"] = self.contrast(cls, key)
        if self.keys["cutmix_loss"]:
            out["cutmix_loss"] = self.mixed_loss(neighborhood, center, codes, key)
        if key is not None and self.training:
            self.enqueue(gather_batch(key))
        accuracy = ((logits.argmax(-1) == codes) & hidden).sum() / mean_all(hidden.sum()) * 100
        return {"loss": sum(out[name] for name in LOSSES if name in out), "acc": accuracy, **out}

    def mixed_loss(self, neighborhood, center, codes, key):
        """Return the loss of clouds of which a random share of patches is another's (CutMix, Yun et al. 2019)."""
        share = torch.rand(len(codes), 1, device=codes.device)
        own = torch.rand(codes.shape, device=codes.device) < share  # B G
        mixed_codes = torch.where(own, codes, codes.flip(0))
        mixed_center = torch.where(own[..., None], center, center.flip(0))
        mixed = torch.where(own[..., None, None], neighborhood, neighborhood.flip(0))
        cls, logits, hidden = self.transformer_q.predict(mixed, mixed_center, self.keys)
        loss = code_loss(logits, mixed_codes, hidden)
        if key is not None:
            share = own.float().mean(1)  # B
            losses = [self.contrast(cls, other, reduce=False) for other in (key, key.flip(0))]
            loss = loss + (share * losses[0] + (1 - share) * losses[1]).mean()
        return loss

    @torch.no_grad()
    def next_key(self, neighborhood, center):
        """Move the key encoder towards the query encoder, in training, and return its normed class features (B, C)."""
        if self.training:
            for key, query in zip(self.transformer_k.parameters(), self.transformer_q.parameters(), strict=True):
                key.lerp_(query, 1 - self.momentum)
        return F.normalize(self.transformer_k.class_feature(neighborhood, center).float(), dim=-1)

    def contrast(self, cls, key, reduce=True):
        """Return the cross-entropy of telling a cloud's ``key`` (B, C) from those in the queue (He et al. 2020)."""
        query = F.normalize(cls.float(), dim=-1)
        positive = (query * key).sum(-1, keepdim=True)
        logits = torch.cat([positive, query @ self.queue.clone()], 1) / self.temperature  # B 1+K
        label = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        return F.cross_entropy(logits, label, reduction="mean" if reduce else "none")

    @torch.no_grad()
    def enqueue(self, keys):
        """Put ``keys`` (B, C) into the queue in place of the oldest."""
        if len(keys) > self.length:
            raise ConfigError(f"model.K is {self.length}, but a step has {len(keys)} clouds: the queue must hold them")
        place = (self.queue_ptr + torch.arange(len(keys), device=keys.device)) % self.length
        self.queue[:, place] = keys.T
        self.queue_ptr[0] = (self.queue_ptr[0] + len(keys)) % self.length

    def forward_features(self, points):
        """Return the student's features (B, 2C) of whole clouds (B, N, 3), for a probe."""
        return self.transformer_q.features(*group(points, self.num_group, self.group_size))


LOSSES = ("dvae_loss", "moco_loss", "cutmix_loss")


class TokenTransformer(MaskTransformer):
    """The student: masked patches keep their place, and a token of their own takes it."""

    def __init__(self, **keys):
        super().__init__(**keys)
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.zeros(1, 1, keys["embed_dim"]), std=0.02))

    def predict(self, neighborhood, center, keys):
        """Return class features (B, C'), logits of the codes (B, G, V) and which patches count in the loss (B, G)."""
        tokens = self.tokens(neighborhood)  # B G C
        masked = block_mask_by_ratio(center, keys["mask_ratio"])  # B G
        tokens = torch.where(masked[..., None], self.mask_token.to(tokens.dtype), tokens)
        counted = masked
        if keys["replace_pob"]:
            replaced = (torch.rand(masked.shape, device=masked.device) < keys["replace_pob"]) & ~masked
            other_tokens = tokens.flatten(0, 1)[torch.randperm(masked.numel(), device=masked.device)].view_as(tokens)
            tokens, counted = torch.where(replaced[..., None], other_tokens, tokens), masked | replaced
        x, _ = self.encode(tokens, center)
        counted = torch.ones_like(counted) if keys["return_all_tokens"] else counted
        return self.cls_head(x[:, 0]), self.lm_head(x[:, 1:]), counted

    def class_feature(self, neighborhood, center):
        """Return the class features (B, C') of whole clouds."""
        return self.cls_head(self.encode(self.tokens(neighborhood), center)[0][:, 0])


def block_mask_by_ratio(center, ratio):
    """Mask the patches nearest to a random centre, a random share between the two of ``ratio`` in every cloud.

    ``center`` (B, G, 3) → (B, G) bool, True where masked.
    """
    batch, groups, _ = center.shape
    low, high = ratio if isinstance(ratio, tuple) else (ratio, ratio)
    share = low + (high - low) * torch.rand(batch, 1, device=center.device)
    seed = torch.randint(groups, (batch, 1), device=center.device)
    distance = (center - gather(center, seed)).square().sum(-1)  # B G
    return distance.argsort(1).argsort(1) < (share * groups).int()


def code_loss(logits, codes, counted):
    """Return the cross-entropy of ``logits`` (B, G, V) and ``codes`` (B, G) where ``counted`` (B, G), in float32.

    Divided by how many are counted in a process on average, so that the mean over processes is that of all patches.
    """
    return F.cross_entropy(logits[counted].float(), codes[counted], reduction="sum") / mean_all(counted.sum())


def check_student(keys: TokenStudent) -> None:
    """Raise ConfigError where the keys of ``transformer_config`` contradict each other."""
    if isinstance(keys.mask_ratio, tuple) and keys.mask_ratio[0] > keys.mask_ratio[1]:
        raise ConfigError(f"model.transformer_config.mask_ratio is {list(keys.mask_ratio)}; give the lowest and the "
                          f"highest share, in this order")
    if not (keys.dvae_loss or keys.cutmix_loss or keys.moco_loss):
        raise ConfigError("model.transformer_config: dvae_loss, cutmix_loss and moco_loss are all off")
