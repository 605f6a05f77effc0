"""A trained encoder or classifier from a checkpoint, for use outside the commands."""
import torch

from models.build import build_model_from_cfg
from utils.checkpoint import load_model, read, weights_in
from utils.config import load_config
from utils.errors import CheckpointError, ConfigError
from utils.weight_names import ENCODERS, strip_prefix

PRETRAINING = ("ACT_PointDistillation", "ACT_PointBERT")  # whose student becomes a PointTransformer
I2P_CLASSIFIERS = ("I2P_MAE_ModelNet40", "I2P_MAE_ScanObjectNN")
I2P_NAMES = ("I2P_MAE", *I2P_CLASSIFIERS)
NPOINTS = 1024  # of a cloud, where neither config nor checkpoint says
# what a checkpoint tells about itself
NOTES = {"model": dict, "npoints": int, "class_names": list, "up": str, "test_area": int}
# the keys of a student in a config of these that a PointTransformer has too
SHARED_KEYS = ("embed_dim", "depth", "num_heads", "drop_path_rate")


def load_pretrained(checkpoint, config=None, device="cpu"):
    """Return a model in evaluation mode with the weights of a pretrained or fine-tuned checkpoint.

    It is a PointTransformer for the students of ACT, an I2P_MAE or one of its classifiers for those of I2P-MAE.

    Args:
        checkpoint: path of a ``.pth`` or ``.safetensors`` file.
        config: path of the config it was trained with, of pretraining or fine-tuning; None: the one that is kept in
            files written here, or else the published architecture.
        device: where the model goes.

    ``model.forward_features(points)`` gives features (B, C) of clouds (B, N, 3) float32, which should be centred,
    scaled to the unit sphere, have y up (``datasets.io.point_files.read_cloud``) and ``model.npoints`` points.
    ``model(points)["logits"]`` means something after fine-tuning alone; ``model.class_names`` are the classes then.

    Raises CheckpointError or ConfigError where the file is damaged, or not of that model.
    """
    content = read(checkpoint)
    config = load_config(config) if config is not None else notes_in(content)
    section = config.get("model") or published_section(weights_in(content, checkpoint))
    model = build_pretrained(section, content, checkpoint).to(device)
    model.npoints = npoints_of(config)
    return model


def npoints_of(config):
    """Return how many points of a cloud a model sees: ``npoints`` of the config, or that of its training set."""
    section = config.get("dataset", {}).get("train", {})
    return config.get("npoints") or section.get("others", {}).get("npoints") or NPOINTS


def published_section(weights):
    """Return the ``model`` section that published weights, which say nothing of themselves, are of.

    Point-BERT's patch encoder is narrower than its Transformer.
    """
    if any(key.startswith("h_decoder.") for key in weights):
        return {"NAME": "I2P_MAE"}
    encoder, _, _ = strip_prefix(weights, ENCODERS)
    last = encoder.get("encoder.second_conv.3.weight")
    return {"NAME": "PointTransformer", **({} if last is None else {"encoder_dims": last.shape[0]})}


def build_pretrained(section, content=None, path=None, head=True):
    """Build the encoder or classifier of a ``model`` section, of pretraining or fine-tuning, and load a checkpoint.

    ``content`` is what ``checkpoint.read`` returned for ``path``; None leaves the model untrained. What kind of head
    the file has is seen from its weights, unless the section says; a head that does not fit is a CheckpointError.
    Without ``head`` it is left out, for features alone.

    The model has the attributes ``load_report``; ``classes``, their number; ``class_names``, where the file tells them,
    or None; and ``trained_head``, whether it has a head of the file's. It is in evaluation mode.
    """
    section, name = dict(section), section.get("NAME")
    if section.get("cls_dim") is None:  # null: as the file has it
        section.pop("cls_dim", None)
    if name not in ("PointTransformer", *PRETRAINING, *I2P_NAMES):
        raise ConfigError(f"{path or 'the config'} is of the model {name}; a PointTransformer or one of "
                          f"{', '.join((*PRETRAINING, *I2P_NAMES))} is needed")
    weights = {} if content is None else weights_in(content, path)
    biases = [value for key, value in weights.items() if "cls_head_finetune." in key and key.endswith(".bias")]
    if name == "I2P_MAE":  # features need no image model
        section |= {"mask_type": "rand", "loss_2d": False}
    elif name not in I2P_CLASSIFIERS:
        section = classifier_section(section, weights, biases)
    if not head:
        weights, biases = {key: value for key, value in weights.items() if "cls_head_finetune." not in key}, []
        section.pop("cls_dim", None)
    classes = len(biases[-1]) if biases else section.get("cls_dim", 1)
    if name != "I2P_MAE" and section.setdefault("cls_dim", classes) != classes:
        raise CheckpointError(f"checkpoint {path} has {classes} classes, but the config's model.cls_dim is "
                              f"{section['cls_dim']}")
    model = build_model_from_cfg(section)
    complete = bool(biases) or name == "I2P_MAE"
    model.load_report = "Untrained encoder" if content is None else load_model(model, weights, path, complete)
    if name not in I2P_NAMES and weights and not any(key.endswith("cls_token") for key in weights):
        model.load_report += silence_class_token(model)
    model.classes, model.trained_head = classes, bool(biases)
    names = notes_in(content).get("class_names") if biases else None
    model.class_names = names and [*map(str, names), *(f"class {index}" for index in range(len(names), classes))]
    return model.eval()


def silence_class_token(model):
    """Set the class token, which a file such as Point-MAE's lacks, to zero, and say so.

    At random, features would differ from one loading to the next.
    """
    for parameter in (model.cls_token, model.cls_pos):
        torch.nn.init.zeros_(parameter)
    return "; it has no class token, which is zero here"


def classifier_section(section, weights, biases):
    """Return the ``model`` section of the PointTransformer that fits a section of ACT's and the weights in a file.

    ``biases`` are those of its head.
    """
    if section["NAME"] in PRETRAINING:
        section = student_section(section)
    if any("side_alpha" in key for key in weights):
        section.setdefault("transfer_type", "side")
    elif len(biases) == 1:
        section.setdefault("transfer_type", "linear")
    return section


def notes_in(content):
    """Return what a checkpoint that was written here tells about itself, as far as it is of the right kinds."""
    notes = content.get("notes") if isinstance(content, dict) else None
    notes = notes if isinstance(notes, dict) else {}
    return {key: notes[key] for key, kind in NOTES.items() if isinstance(notes.get(key), kind)}


def student_section(section):
    """Return the ``model`` section of a PointTransformer for the student of a stage-II ``model`` section."""
    if not all(isinstance(section.get(key), dict) for key in ("transformer_config", "dvae_config")):
        raise ConfigError(f"the model section of a {section['NAME']} lacks transformer_config or dvae_config")
    student, teacher = section["transformer_config"], section["dvae_config"]
    keys = {key: student[key] for key in SHARED_KEYS if key in student}
    keys |= {key: teacher[key] for key in ("group_size", "num_group") if key in teacher}
    return {"NAME": "PointTransformer", "encoder_dims": teacher["encoder_dims"], "cls_dim": 1, **keys}
