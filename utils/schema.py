"""The keys at the top of a config file and their sections; the keys of models and data sets stand at their classes."""
from typing import Annotated, Any, Literal

import pydantic
from annotated_types import Len, MinLen

from utils.key_types import (
    ABSENT,
    FractionAboveZero,
    FractionBelowOne,
    Listed,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
)


class OptimizerArguments(Section):
    """Arguments of ``torch.optim.AdamW``.

    Keys:
        lr: the highest learning rate.
        weight_decay: of weights; biases, tokens and other parameters of one dimension have none.
        betas, eps: as in AdamW.
    """

    lr: NonNegativeFloat
    weight_decay: NonNegativeFloat = 0.0
    betas: Annotated[Listed[FractionBelowOne], Len(2, 2)] = (0.9, 0.999)
    eps: NonNegativeFloat = 1e-8


class Optimizer(Section):
    """How weights follow gradients.

    Keys:
        type: the optimizer.
        kwargs: its arguments.
        layer_decay: the learning rate of a layer is that of the layer above it times this; for fine-tuning.
    """

    type: Literal["AdamW"]
    kwargs: OptimizerArguments
    layer_decay: FractionAboveZero = 1.0


class SchedulerArguments(Section):
    """Arguments of the cosine schedule.

    Keys:
        epochs: the length of warm-up and cosine together.
        initial_epochs: of warm-up, from a rate of 1e-6.
        lr_min: the learning rate in the end.
    """

    epochs: PositiveInt
    initial_epochs: NonNegativeInt = 0
    lr_min: NonNegativeFloat = 1e-7


class Scheduler(Section):
    """How the learning rate changes from epoch to epoch.

    Keys:
        type: the schedule.
        kwargs: its arguments.
    """

    type: Literal["CosLR"]
    kwargs: SchedulerArguments


class Split(Section):
    """One subset of a data set.

    Keys:
        _base_: the keys of the data set, or the file that holds them.
        others: further keys of the data set, which have priority.
    """

    base: dict[str, Any] = pydantic.Field(alias="_base_")
    others: Annotated[dict[str, Any], pydantic.BeforeValidator(lambda value: {} if value is None else value)] = {}


class Splits(Section):
    """The data of a run.

    Keys:
        train: what is trained on.
        val: what is evaluated on; in pre-training, the test data of the linear SVM.
        test: what ``--test`` uses, ``val`` where it is absent.
        extra_train: in pre-training and for ``--test_svm``, the training data of the probes.
    """

    train: Split = ABSENT
    val: Split = ABSENT
    test: Split = ABSENT
    extra_train: Split = ABSENT


class Named(Section, extra="allow"):
    """A section whose keys are those of the class that it names.

    Keys:
        NAME: the class.
    """

    NAME: str


class Ramp(Section):
    """A value that follows half a cosine.

    Keys:
        start, target: the first and the last value.
        ntime: steps between them.
    """

    start: float
    target: float
    ntime: PositiveFloat


class DelayedRamp(Ramp):
    """A value that follows half a cosine after a while.

    Keys:
        offset: steps before it begins to change.
    """

    offset: NonNegativeFloat = 0.0


class Vote(Section):
    """Testing by votes over random, augmented subsets of a cloud.

    Keys:
        times: views a vote.
        rounds: votes of ``--test``.
    """

    times: PositiveInt = 10
    rounds: NonNegativeInt = 299


class Probe(Section):
    """What probes of frozen features choose among by cross-validation.

    Keys:
        svm_c, logistic_c: C of the linear SVM and of logistic regression.
        svc_c: C of the linear SVC of I2P-MAE; null stands for that of the data set named by ``--test_svm``.
        neighbours: k of the nearest neighbours.
    """

    svm_c: Annotated[Listed[PositiveFloat], MinLen(1)] = (0.001, 0.01, 0.1)
    svc_c: Annotated[Listed[PositiveFloat], MinLen(1)] | None = None
    logistic_c: Annotated[Listed[PositiveFloat], MinLen(1)] = (0.001, 0.01, 0.1, 1.0)
    neighbours: Annotated[Listed[PositiveInt], MinLen(1)] = (1, 5, 10, 20)


class Config(Section):
    """The keys of a config file.

    Keys:
        optimizer, scheduler: training needs them.
        dataset: the data of the run.
        model: ``NAME``, the model's class, and its keys.
        total_bs: clouds a step, of all processes together.
        step_per_update: steps whose gradients one update of the weights takes together.
        max_epoch: the last epoch, counted from 0; training needs it.
        grad_norm_clip: the highest norm of the gradients; null for no limit.
        npoints: points a cloud that a classifier or a probe sees; null for as many as the data set gives.
        train_transforms: augmentations of training clouds, by name: ``ScaleAndTranslate``, ``ScaleAndShift``, ``Scale``
            or ``Rotate``. The default is the model's, null stands for none.
        test_transforms: those of the views of a vote, likewise.
        consider_metric: stage I: the metric by which ``ckpt-best.pth`` is chosen.
        temp: stage I, which needs it: the temperature of the Gumbel softmax.
        kldweight: stage I, which needs it: the weight of the KL divergence.
        code_spread: stage I: the standard deviation of the codes' logits at the start, set from training clouds; null
            leaves the random initialisation.
        vote: testing by votes.
        probe: probes of frozen features (``--test_svm``).
    """

    optimizer: Optimizer = ABSENT
    scheduler: Scheduler = ABSENT
    dataset: Splits
    model: Named
    total_bs: PositiveInt
    step_per_update: PositiveInt = 1
    max_epoch: NonNegativeInt = ABSENT
    grad_norm_clip: NonNegativeFloat | None = None
    npoints: PositiveInt | None = None
    train_transforms: Listed[str] | None = ABSENT
    test_transforms: Listed[str] | None = ABSENT
    consider_metric: str = "CDL1"
    temp: Ramp = ABSENT
    kldweight: DelayedRamp = ABSENT
    code_spread: NonNegativeFloat | None = None
    vote: Vote = Vote()
    probe: Probe = Probe()


TRAINING = ("optimizer", "scheduler", "dataset.train", "max_epoch")  # what a training needs of them
