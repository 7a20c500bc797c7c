"""The gallery: pictures in one LanceDB table, their embeddings in one table per model version."""

from store.gallery.filters import Facets, Filters
from store.gallery.gallery import Gallery
from store.gallery.image_table import ImageRow, NewImage
from store.gallery.vector_search import Candidate

__all__ = ["Candidate", "Facets", "Filters", "Gallery", "ImageRow", "NewImage"]
