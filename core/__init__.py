"""The model: backbones, PETL modules, the encoder, weights on disk, query algebra.

The names below are imported when they are first asked for: reading pictures and errors needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.backbones import Backbone, backbone_names, load_backbone
    from core.checkpoints import load_petl, load_released, load_version, save_petl, save_released
    from core.core_errors import BackboneError, CheckpointError, CoreError, PictureError, QueryError
    from core.encoder import Encoder
    from core.model import UPPerson
    from core.petl import PetlConfig, TowerPetl

_HOMES = {
    "core.backbones": ("Backbone", "backbone_names", "load_backbone"),
    "core.checkpoints": ("load_petl", "load_released", "load_version", "save_petl", "save_released"),
    "core.core_errors": ("BackboneError", "CheckpointError", "CoreError", "PictureError", "QueryError"),
    "core.encoder": ("Encoder",),
    "core.model": ("UPPerson",),
    "core.petl": ("PetlConfig", "TowerPetl"),
}  # fmt: skip

__all__ = [
    "Backbone", "BackboneError", "CheckpointError", "CoreError", "Encoder", "PetlConfig", "PictureError",
    "QueryError", "TowerPetl", "UPPerson", "backbone_names", "load_backbone", "load_petl", "load_released",
    "load_version", "save_petl", "save_released",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'core' has no attribute {name!r}")
    return getattr(import_module(home), name)
