"""A trained student or classifier from a checkpoint, for use outside the commands."""
from models.build import build_model_from_cfg
from utils.checkpoint import load_model, read, weights_in
from utils.config import load_config
from utils.errors import CheckpointError, ConfigError

PRETRAINING = ("ACT_PointDistillation", "ACT_PointBERT")
# the keys of a student in a config of these that a PointTransformer has too
SHARED_KEYS = ("embed_dim", "depth", "num_heads", "drop_path_rate")


def load_pretrained(checkpoint, config=None, device="cpu"):
    """Return a PointTransformer in evaluation mode with the weights of a stage-II or fine-tuned checkpoint.

    Args:
        checkpoint: path of a ``.pth`` or ``.safetensors`` file.
        config: path of the config it was trained with, of either stage; None: the one that is kept in files written
            here, or else the published architecture.
        device: where the model goes.

    ``model.forward_features(points)`` gives features (B, 2C) of clouds (B, N, 3) float32, which should be centred,
    scaled to the unit sphere (``datasets.base.normalize``) and have y up. ``model(points)["logits"]`` means something
    after fine-tuning alone. ``model.class_names`` is the list of classes, or None where the file does not tell.

    Raises CheckpointError or ConfigError where the file is damaged, or not of that model.
    """
    content = read(checkpoint)
    section = dict(load_config(config).model) if config is not None else notes_in(content).get("model")
    return build_pretrained(section or {"NAME": "PointTransformer"}, content, checkpoint).to(device)


def build_pretrained(section, content=None, path=None):
    """Build the PointTransformer of a ``model`` section, of stage II or of fine-tuning, and load a checkpoint.

    ``content`` is what ``checkpoint.read`` returned for ``path``; None leaves the model untrained. The model has the
    attributes ``load_report``; ``classes``, their number; ``class_names``, where the file tells them, or None; and
    ``trained_head``, whether the file has a head. It is in evaluation mode.
    """
    if section.get("NAME") not in ("PointTransformer", *PRETRAINING):
        raise ConfigError(f"{path or 'the config'} is of the model {section.get('NAME')}; a PointTransformer or one of "
                          f"{', '.join(PRETRAINING)} is needed")
    if section["NAME"] in PRETRAINING:
        section = student_section(section)
    weights = {} if content is None else weights_in(content, path)
    head = [value for key, value in weights.items() if "cls_head_finetune." in key and key.endswith(".bias")]
    section = {"cls_dim": len(head[-1]) if head else 1, **section}
    if head and section["cls_dim"] != len(head[-1]):
        raise CheckpointError(f"checkpoint {path} has {len(head[-1])} classes, but the config's model.cls_dim is "
                              f"{section['cls_dim']}")
    model = build_model_from_cfg(section)
    model.load_report = "Untrained encoder" if content is None else load_model(model, weights, path)
    model.classes, model.trained_head = section["cls_dim"], bool(head)
    model.class_names = notes_in(content).get("class_names") if head else None
    return model.eval()


def notes_in(content):
    """Return what a checkpoint that was written here tells about itself; nothing for others."""
    notes = content.get("notes", {}) if isinstance(content, dict) else {}
    return notes if isinstance(notes, dict) else {}


def student_section(section):
    """Return the ``model`` section of a PointTransformer for the student of a stage-II ``model`` section."""
    student, teacher = section["transformer_config"], section["dvae_config"]
    keys = {key: student[key] for key in SHARED_KEYS if key in student}
    keys |= {key: teacher[key] for key in ("group_size", "num_group") if key in teacher}
    return {"NAME": "PointTransformer", "encoder_dims": teacher["encoder_dims"], "cls_dim": 1, **keys}
