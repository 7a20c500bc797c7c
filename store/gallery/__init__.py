"""The gallery: pictures in one LanceDB table, their embeddings in one table per model version."""

from store.gallery.gallery import Gallery
from store.gallery.image_rows import Candidate, Facets, Filters, ImageRow, NewImage

__all__ = ["Candidate", "Facets", "Filters", "Gallery", "ImageRow", "NewImage"]
