"""Models of ACT (the autoencoders of stage I, the masked student of stage II, the classifier) and of I2P-MAE."""
from models.act.classifier import PointTransformer
from models.act.distillation import ACT_PointDistillation
from models.act.dvae import DiscreteVAE
from models.act.point_bert import ACT_PointBERT
from models.act.prompted_dvae import ACTPromptedDiscreteVAEwithBERT, ACTPromptedDiscreteVAEwithVIT
from models.act.segmenter import PointSegmenter
from models.build import MODELS, build_model_from_cfg
from models.i2p_mae.classifier import I2P_MAE_ModelNet40, I2P_MAE_ScanObjectNN
from models.i2p_mae.model import I2P_MAE
from models.pretrained import load_pretrained

__all__ = ["ACT_PointBERT", "ACT_PointDistillation", "ACTPromptedDiscreteVAEwithBERT", "ACTPromptedDiscreteVAEwithVIT",
           "DiscreteVAE", "I2P_MAE", "I2P_MAE_ModelNet40", "I2P_MAE_ScanObjectNN", "MODELS", "PointSegmenter",
           "PointTransformer", "build_model_from_cfg", "load_pretrained"]
