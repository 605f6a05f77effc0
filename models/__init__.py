"""Models of ACT (the autoencoders of stage I, the masked student of stage II, the classifier) and of I2P-MAE."""
from models.act import ACT_PointDistillation
from models.build import MODELS, build_model_from_cfg
from models.classifier import PointTransformer
from models.dvae import DiscreteVAE
from models.i2p import I2P_MAE
from models.i2p_classifier import I2P_MAE_ModelNet40, I2P_MAE_ScanObjectNN
from models.pointbert import ACT_PointBERT
from models.pretrained import load_pretrained
from models.prompted import ACTPromptedDiscreteVAEwithBERT, ACTPromptedDiscreteVAEwithVIT
from models.segmenter import PointSegmenter

__all__ = ["ACT_PointBERT", "ACT_PointDistillation", "ACTPromptedDiscreteVAEwithBERT", "ACTPromptedDiscreteVAEwithVIT",
           "DiscreteVAE", "I2P_MAE", "I2P_MAE_ModelNet40", "I2P_MAE_ScanObjectNN", "MODELS", "PointSegmenter",
           "PointTransformer", "build_model_from_cfg", "load_pretrained"]
