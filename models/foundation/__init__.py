"""Foundation models: pretrained Transformers, of images or language, as the middle of a 3D autoencoder."""
from models.foundation.base import Foundation, Prompts
from models.foundation.language import build_language
from models.foundation.vision import build_vision

__all__ = ["Foundation", "Prompts", "build_language", "build_vision"]
