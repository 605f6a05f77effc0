"""What the loader of weights and the tasks ask of a model."""
from torch import nn


class Loadable(nn.Module):
    """A model that says how the weights in a file may differ from its own.

    Attributes:
        weight_prefixes: what may stand before the names of its weights in a file, see ``utils.weight_names``.
        weight_names: beginnings of names in a file → what this model has in their place.
        optional_weights: beginnings of names of this model that a file may lack, or hold in another form.
        unused_weights: regular expressions of how names begin that a file may hold and this model does not.
        published_key: under which, beside ``base_model``, its checkpoints hold the weights for the published code.
        train_transforms: the names of the augmentations of training clouds, unless the config names others.
        test_transforms: likewise, of the views of a vote.
    """

    weight_prefixes: tuple[str, ...] = ()
    weight_names: dict[str, str] = {}
    optional_weights: tuple[str, ...] = ()
    unused_weights: tuple[str, ...] = ()
    published_key: str | None = None
    train_transforms: tuple[str, ...] = ()
    test_transforms: tuple[str, ...] = ()

    def upgrade_weights(self, weights: dict) -> dict:
        """Return a file's weights as this version writes them; they are from this or an earlier one."""
        return weights
