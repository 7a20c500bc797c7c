"""Synthetic pedestrians: pictures with captions of people who do not exist. Everything starts from `takes`."""

from train.pedestrians.generator import SEEDS, VERSION, SyntheticSet, Take, Use, load, parallel, takes
from train.pedestrians.people import Domain

__all__ = ["SEEDS", "VERSION", "Domain", "SyntheticSet", "Take", "Use", "load", "parallel", "takes"]
