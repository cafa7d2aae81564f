"""Reads files out of lazily readable container images, verified, fetching only what is read."""

from ._errors import (
    DigestMismatch, EngineError, LimitExceeded, Malformed, NotFound, NotLazy, Protocol, TooManyLinks, Unsupported,
    Unverifiable, WrongKind)
from ._image import Image
from ._sources import Files, Registry, Source, SourceError

__all__ = [
    "DigestMismatch", "EngineError", "Files", "Image", "LimitExceeded", "Malformed", "NotFound", "NotLazy", "Protocol",
    "Registry", "Source", "SourceError", "TooManyLinks", "Unsupported", "Unverifiable", "WrongKind"]
