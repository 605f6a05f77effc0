"""Point operators: schemas, kernels and the faces of the packages that the published code used."""
from extensions import autograd, kernels, schemas

__all__ = ["autograd", "backend", "kernels", "schemas"]


def backend():
    """Return in words which kernels serve."""
    return "pure PyTorch"
