"""The discrete autoencoder of stage I: Point-BERT's dVAE, and the base of ACT's."""
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Len, MultipleOf
from torch import nn

from models.act.codebook import codebook_perplexity, gumbel_noise
from models.build import MODELS
from models.interface import Loadable
from models.layers.dgcnn import DGCNN, center_graph
from models.layers.folding import FoldingDecoder
from models.layers.patches import PatchEncoder, group
from models.losses import code_kl, reconstruction_loss
from utils.distributed import gather_batch
from utils.errors import ConfigError
from utils.key_types import Because, Listed, NonNegativeFloat, PositiveInt

MultipleOfFour = Annotated[PositiveInt, MultipleOf(4)]
GraphWidths = Annotated[Listed[MultipleOfFour], Len(5, 5), Because("of five layers whose norms have 4 groups")]


@MODELS.register
class DiscreteVAE(Loadable):
    """Patch tokens → codes → codebook → DGCNN → FoldingNet decoder (Yu et al. 2022; ACT, section 4.1).

    Keys:
        group_size: points a patch.
        num_group: patches a cloud.
        num_tokens: number of codes.
        encoder_dims: width of the patch tokens.
        tokens_dims: width of the codes.
        decoder_dims: width of what the decoder is given.
        dgcnn_dims: widths of the input layer and the four EdgeConvs of both DGCNNs.
        folding_dims: widths of the decoder's MLP and of its folding layers.
        code_noise: how much Gumbel noise the codes of training have; 1 samples them, as published, 0 mixes the
            codebook's rows by their probabilities.
    """

    def __init__(self, *, group_size: Annotated[MultipleOfFour, Because("the decoder folds 2 × 2 points")],
                 num_group: PositiveInt, num_tokens: PositiveInt, encoder_dims: PositiveInt, tokens_dims: PositiveInt,
                 decoder_dims: PositiveInt, dgcnn_dims: GraphWidths = (128, 256, 512, 512, 1024),
                 folding_dims: Annotated[Listed[PositiveInt], Len(2, 2)] = (1024, 512),
                 code_noise: NonNegativeFloat = 1.0) -> None:
        super().__init__()
        self.group_size, self.num_group, self.num_tokens = group_size, num_group, num_tokens
        self.tokens_dims, self.decoder_dims, self.code_noise = tokens_dims, decoder_dims, code_noise
        self.encoder = PatchEncoder(encoder_dims)
        self.dgcnn_1 = DGCNN(encoder_dims, num_tokens, dgcnn_dims)
        self.codebook = nn.Parameter(torch.randn(num_tokens, tokens_dims))
        self.dgcnn_2 = DGCNN(tokens_dims, decoder_dims, dgcnn_dims)
        self.decoder = FoldingDecoder(decoder_dims, group_size, folding_dims)

    def forward(self, points, temperature=1.0, kld_weight=0.0):
        """Reconstruct ``points`` (B, N, 3) patch by patch.

        In training the codes are Gumbel-softmax samples at ``temperature``; in evaluation the arg-max.

        Returns a dict: ``loss`` (recon_loss + kld_weight × kld_loss), ``recon_loss``, ``kld_loss``, ``codes``
        (B, G), ``perplexity`` of the codes in the batch, ``whole_coarse`` (B, G K/4, 3) and ``whole_fine``
        (B, G K, 3), in the cloud's frame.
        """
        neighborhood, center = group(points, self.num_group, self.group_size)
        graph = center_graph(center)
        logits = self.code_logits(neighborhood, graph)  # B G V
        codes = logits.detach().argmax(-1)  # B G
        hard = self.codebook[codes]  # B G C
        tokens = self.soft_tokens(logits, temperature) if self.training else hard
        coarse, fine = self.decode(tokens, center, graph)
        recon_loss = reconstruction_loss(coarse, fine, neighborhood)
        kld_loss = code_kl(logits)
        return {
            "loss": recon_loss + kld_weight * kld_loss, "recon_loss": recon_loss, "kld_loss": kld_loss,
            "codes": codes, "perplexity": self.perplexity(codes), "logits": logits,
            "whole_coarse": (coarse + center.unsqueeze(2)).flatten(1, 2),
            "whole_fine": (fine + center.unsqueeze(2)).flatten(1, 2),
        }

    def code_logits(self, neighborhood, graph):
        """Return the logits (B, G, V) over the codes of each patch."""
        return self.dgcnn_1(self.encoder(neighborhood), graph)

    @torch.no_grad()
    def spread_codes(self, points, scale):
        """Set the last norm of ``dgcnn_1`` so that over clouds (B, N, 3) every code's logit varies alike.

        Before the activation each logit then has mean 0 and standard deviation ``scale`` over the patches: an
        initialisation from data, as in Salimans & Kingma 2016. As built, logits differ between codes far more than
        between patches: nearly all patches get one code, and the noise of the samples drowns what they tell.
        """
        neighborhood, center = group(points, self.num_group, self.group_size)
        norm, seen = self.dgcnn_1.layer5[1], []
        norm.reset_parameters()
        hook = norm.register_forward_hook(lambda module, args, out: seen.append(out.float()))
        self.code_logits(neighborhood, center_graph(center))
        hook.remove()
        std, mean = torch.std_mean(seen[0], (0, 2))  # V
        norm.weight.copy_(scale / std.clamp_min(1e-6))
        norm.bias.copy_(-norm.weight * mean)

    def soft_tokens(self, logits, temperature):
        """Return the codebook's rows mixed by a softmax, with ``code_noise``: (B, G, V) → (B, G, C)."""
        logits = logits.float()
        if self.code_noise == 1:
            mixture = F.gumbel_softmax(logits, tau=temperature, dim=-1)
        else:
            mixture = ((logits + self.code_noise * gumbel_noise(logits)) / temperature).softmax(-1)
        return mixture.to(self.codebook.dtype) @ self.codebook

    def decode(self, tokens, center, graph):
        """Return the coarse and fine patches (B, G, ., 3) of tokens (B, G, C) of the codebook."""
        return self.decoder(self.dgcnn_2(self.transform(tokens, center), graph))

    def codes(self, neighborhood, center):
        """Return the most likely code (B, G) of each patch."""
        return self.code_logits(neighborhood, center_graph(center)).argmax(-1)

    def perplexity(self, codes):
        """Return the effective number of codes in use; in training in the batch of all processes."""
        return codebook_perplexity(gather_batch(codes) if self.training else codes, self.num_tokens)

    def transform(self, tokens, center):
        """Place of the foundation Transformer between the codebook and ``dgcnn_2``; here there is none."""
        return tokens

    def shuffled_loss(self, points):
        """Return the reconstruction loss of clouds (B, N, 3) whose codes are exchanged between all their patches.

        By how much it is higher than ``recon_loss`` in evaluation is what the codes carry; the rest of the
        reconstruction comes from the patches' positions.
        """
        neighborhood, center = group(points, self.num_group, self.group_size)
        codes = self.codes(neighborhood, center)
        order = torch.randperm(codes.numel(), generator=torch.Generator().manual_seed(0)).to(codes.device)
        tokens = self.codebook[codes.flatten()[order].view(codes.shape)]
        return reconstruction_loss(*self.decode(tokens, center, center_graph(center)), neighborhood)

    def teacher_features(self, neighborhood, center, codes="gumbel", after_dgcnn2=True, layer=None):
        """Return the distillation target (B, G, C) of patches that are already grouped.

        ``codes``: ``gumbel`` samples each code from the predicted distribution (the published behaviour),
        ``argmax`` takes the most likely, ``soft`` mixes all by their probabilities. ``after_dgcnn2``: the feature
        after ``dgcnn_2`` (published) or before it. ``layer``: instead, the output of that block, from 0, of the
        foundation Transformer.
        """
        graph = center_graph(center)
        logits = self.code_logits(neighborhood, graph).float()
        if codes == "soft":
            tokens = logits.softmax(-1).to(self.codebook.dtype) @ self.codebook
        else:  # the arg-max under Gumbel noise is a sample of the softmax
            noise = gumbel_noise(logits) if codes == "gumbel" else 0
            tokens = self.codebook[(logits + noise).argmax(-1)]
        if layer is not None:
            return self.hidden(tokens, center, layer)
        features = self.transform(tokens, center)
        return self.dgcnn_2(features, graph) if after_dgcnn2 else features

    def target_width(self, after_dgcnn2=True, layer=None):
        """Return the number of channels of ``teacher_features``; ConfigError where there is no such block."""
        if layer is not None:
            raise ConfigError(f"model.dvae_config.teacher_layer is for a teacher with a foundation Transformer, which "
                              f"this {type(self).__name__} has not")
        return self.decoder_dims if after_dgcnn2 else self.tokens_dims
