"""Point operators: schemas, kernels and the faces of the packages that the published code used."""
from extensions import autograd, kernels, schemas

__all__ = ["autograd", "backend", "kernels", "schemas"]


def backend():
    """Return in a few words which kernels serve the operators."""
    return "pure PyTorch"
