"""The model: backbones, PETL modules, the encoder, weights on disk, query algebra."""

from core.backbones import Backbone, backbone_names, load_backbone
from core.checkpoints import load_petl, load_released, load_version, save_petl, save_released
from core.core_errors import BackboneError, CheckpointError, CoreError, PictureError, QueryError
from core.encoder import Encoder
from core.model import UPPerson
from core.petl import PetlConfig, TowerPetl

__all__ = [
    "Backbone",
    "BackboneError",
    "CheckpointError",
    "CoreError",
    "Encoder",
    "PetlConfig",
    "PictureError",
    "QueryError",
    "TowerPetl",
    "UPPerson",
    "backbone_names",
    "load_backbone",
    "load_petl",
    "load_released",
    "load_version",
    "save_petl",
    "save_released",
]
