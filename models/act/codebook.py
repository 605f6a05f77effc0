"""Codes: sampling them, and how many of them are in use."""
import torch


def gumbel_noise(logits):
    """Return noise of the shape of ``logits`` whose sum's arg-max is a sample of their softmax (Gumbel 1954)."""
    return -torch.empty_like(logits).exponential_().log()


def codebook_perplexity(codes, num_tokens):
    """Effective number of codes in use, 1 … ``num_tokens``: the exponential of the entropy of the usage counts.

    ``codes`` holds integer code numbers in any shape.
    """
    share = torch.bincount(codes.flatten(), minlength=num_tokens).double() / codes.numel()  # num_tokens
    return torch.exp(-torch.xlogy(share, share).sum())
