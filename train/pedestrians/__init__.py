"""Synthetic pedestrians: pictures with captions of people who do not exist. Everything starts from `takes`."""

from train.pedestrians.foreign import FOREIGN_VERSION, ForeignTake
from train.pedestrians.generator import VERSION, AnyDomain, Drawn, SyntheticSet, Take, load, parallel, takes
from train.pedestrians.people import SEEDS, Domain, Use

__all__ = [
    "FOREIGN_VERSION",
    "SEEDS",
    "VERSION",
    "AnyDomain",
    "Domain",
    "Drawn",
    "ForeignTake",
    "SyntheticSet",
    "Take",
    "Use",
    "load",
    "parallel",
    "takes",
]
