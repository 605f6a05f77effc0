"""Models of ACT: the discrete autoencoders of stage I, the masked student of stage II and the classifier."""
from models.act import ACT_PointDistillation
from models.build import MODELS, build_model_from_cfg
from models.classifier import PointTransformer
from models.dvae import DiscreteVAE
from models.pointbert import ACT_PointBERT
from models.pretrained import load_pretrained
from models.prompted import ACTPromptedDiscreteVAEwithBERT, ACTPromptedDiscreteVAEwithVIT
from models.segmenter import PointSegmenter

__all__ = ["ACT_PointBERT", "ACT_PointDistillation", "ACTPromptedDiscreteVAEwithBERT", "ACTPromptedDiscreteVAEwithVIT",
           "DiscreteVAE", "MODELS", "PointSegmenter", "PointTransformer", "build_model_from_cfg", "load_pretrained"]
