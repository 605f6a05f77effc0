"""Which patches the student does not see."""
import torch


def random_mask(center, num_mask):
    """Mask ``num_mask`` random patches of each cloud. ``center`` (B, G, 3) → (B, G) bool, True where masked."""
    return _lowest(torch.rand(center.shape[:2], device=center.device), num_mask)


def block_mask(center, num_mask):
    """Mask the ``num_mask`` patches nearest to a random centre of each cloud. (B, G, 3) → (B, G) bool."""
    batch, groups, _ = center.shape
    seed = torch.randint(groups, (batch, 1, 1), device=center.device).expand(-1, -1, 3)
    return _lowest((center - center.gather(1, seed)).square().sum(-1), num_mask)


def guided_mask(saliency, num_mask):
    """Mask all patches but those drawn by saliency. ``saliency`` (B, G) → (B, G) bool, ``num_mask`` a row masked.

    Visible ones are drawn without replacement with the softmax of the saliency for probabilities, so that what an
    image model attends to is seen more often (I2P-MAE, section 3.3).
    """
    visible = torch.multinomial(saliency.float().softmax(-1), saliency.shape[1] - num_mask)
    return torch.ones_like(saliency, dtype=torch.bool).scatter_(1, visible, False)


def _lowest(score, num_mask):
    """Return a mask (B, G) of the ``num_mask`` lowest scores of each row; every row masks the same number."""
    mask = torch.zeros(score.shape, dtype=torch.bool, device=score.device)
    return mask.scatter_(1, score.argsort(1)[:, :num_mask], True)


MASKS = {"rand": random_mask, "block": block_mask}


def make_mask(kind, center, ratio):
    """Mask ``int(ratio * G)`` patches of each cloud by the rule ``kind``: ``rand`` or ``block``."""
    return MASKS[kind](center, int(ratio * center.shape[1]))
