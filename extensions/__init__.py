"""Point operators: schemas, kernels and the faces of the packages that the published code used."""
from extensions import autograd, kernels, schemas
from extensions.backends import backend

__all__ = ["autograd", "backend", "kernels", "schemas"]
