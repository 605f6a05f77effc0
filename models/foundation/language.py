"""Language models of Hugging Face's transformers: BERT and encoders built like it."""
import pathlib
import warnings

import torch
from torch import nn

from models.foundation.base import Foundation, attend
from models.foundation.weights import hub_answers
from utils.errors import CheckpointError, ConfigError, one_line


def build_language(name, pretrained, kwargs):
    """Return the Foundation of the language model ``name``.

    Args:
        name: of a model on the hub, such as ``bert-base-uncased``, or a local folder with ``config.json`` and weights.
        pretrained: ``True`` loads the folder, or downloads; ``False`` leaves the weights random; ``auto`` downloads
            where it can and otherwise warns; any other text is a folder whose weights are taken.
        kwargs: for random weights, arguments of ``BertConfig``, over what the folder says.

    Raises ConfigError where transformers is not installed, the model cannot be had, or is not built like BERT;
    CheckpointError for a damaged folder.
    """
    try:
        import transformers
    except ImportError as error:
        raise ConfigError("language teachers need the package transformers: pip install transformers") from error
    folder = pathlib.Path(pretrained if isinstance(pretrained, str) and pretrained != "auto" else name)
    if pretrained is False:
        model = _random(transformers, folder, kwargs)
    elif folder.is_dir():
        model = _load(transformers, folder)
    elif str(folder) != name:
        raise CheckpointError(f"model.visual_embed_pretrained names {folder}, which is not a folder")
    else:
        model = _download(transformers, name, kwargs, required=pretrained is True)
    encoder = getattr(model, "encoder", None)
    layers = getattr(encoder, "layer", None)
    if layers is None or not hasattr(layers[0], "attention") or not hasattr(layers[0].attention, "self"):
        raise ConfigError(f"model.visual_embed_type '{name}' is a {type(model).__name__}, which is not built like BERT")
    return Bert(layers, model.config.hidden_size)


def _random(transformers, folder, kwargs):
    try:
        if folder.is_dir():
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, **kwargs)
            return transformers.AutoModel.from_config(config, trust_remote_code=False)
        return transformers.BertModel(_described(transformers, str(folder), kwargs), add_pooling_layer=False)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"no language model can be built of {folder} and visual_embed_kwargs {dict(kwargs)}: "
                          f"{one_line(error)[:160]}") from error


def _described(transformers, name, kwargs):
    """Return the BertConfig of a model on the hub, of which there is no folder."""
    if kwargs or "bert-base" in name:
        return transformers.BertConfig(**kwargs)
    try:  # downloaded before
        return transformers.AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    except OSError as error:
        raise ValueError("its sizes are not known here: give them as visual_embed_kwargs, arguments of BertConfig, or "
                         "a local folder as visual_embed_type") from error


def _load(transformers, folder):
    """Return the model in a local folder; every weight of its layers must be there."""
    from safetensors import SafetensorError

    try:
        model, report = transformers.AutoModel.from_pretrained(
            folder, output_loading_info=True, local_files_only=True, use_safetensors=_has_safetensors(folder),
            trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        raise CheckpointError(f"{folder} holds no language model that can be read: {one_line(error)[:160]}") from error
    missing = [key for key in report["missing_keys"] if key.startswith("encoder.")]
    if missing:
        raise CheckpointError(f"{folder} lacks {len(missing)} weights of the model that its config.json describes; for "
                              f"example '{missing[0]}'")
    return model


def _has_safetensors(folder):
    return any(folder.glob("*.safetensors"))


def _download(transformers, name, kwargs, required):
    from huggingface_hub import try_to_load_from_cache

    try:
        cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    except ValueError as error:
        raise ConfigError(f"model.visual_embed_type '{name}' is neither a folder nor a name on the hub") from error
    reason = "the model hub cannot be reached"
    if cached or hub_answers():
        try:
            return transformers.AutoModel.from_pretrained(name, local_files_only=cached, trust_remote_code=False)
        except (OSError, ValueError, RuntimeError) as error:
            reason = one_line(error)[:160]
    if required:
        raise ConfigError(f"the language model '{name}' could not be downloaded ({reason}). Set "
                          f"model.visual_embed_type to a local folder of it, or visual_embed_pretrained to false")
    warnings.warn(f"no pretrained weights for '{name}' ({reason}); going on with random weights", stacklevel=2)
    return _random(transformers, pathlib.Path(name), kwargs)


class Bert(Foundation):
    """Layers of BERT, which norm after adding; the word embedding and the pooler are not used.

    As published, the encoder is the one element, so names begin with ``0.layer.``.
    """

    def __init__(self, layers, width):
        encoder = nn.Module()
        encoder.layer = layers
        super().__init__(encoder, nn.Identity(), width, len(layers))

    def block(self, index, x, prompts=None):
        layer = self[0].layer[index]
        attention, output = layer.attention.self, layer.attention.output
        parts = (attention.query, attention.key, attention.value)
        weight, bias = (torch.cat([getattr(part, name) for part in parts]) for name in ("weight", "bias"))
        dropout = attention.dropout.p if self.training else 0.0
        update = attend(x, prompts, weight, bias, attention.num_attention_heads, dropout=dropout)
        x = output.LayerNorm(output.dropout(output.dense(update)) + x)
        hidden = layer.intermediate.intermediate_act_fn(layer.intermediate.dense(x))
        return layer.output.LayerNorm(layer.output.dropout(layer.output.dense(hidden)) + x)
