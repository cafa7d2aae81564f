"""The failures of the engine as exceptions."""


class EngineError(Exception):
    """Why the engine refused something. `tag` names the case of `error-code`, `detail` is what it holds."""

    def __init__(self, tag, detail):
        self.tag = tag
        self.detail = detail
        text = getattr(detail, "message", detail)
        super().__init__(tag if detail is None else f"{tag}: {text}")


class NotLazy(EngineError):
    """An ordinary layer, which cannot be read lazily."""


class Malformed(EngineError):
    """The blob or its table of contents is damaged or impossible."""


class DigestMismatch(EngineError):
    """Bytes do not have the digest that they should have; `detail` says which, and where they came from."""


class LimitExceeded(EngineError):
    """The image asks for more than a limit allows."""


class Unverifiable(EngineError):
    """The image cannot be checked as far as asked for."""


class NotFound(EngineError):
    """There is nothing at this path."""


class WrongKind(EngineError):
    """A file where a directory is needed, or the reverse."""


class TooManyLinks(EngineError):
    """More symbolic links on the way than Linux follows."""


class Protocol(EngineError):
    """The engine was called wrongly."""


class Unsupported(EngineError):
    """Well formed, but of a kind that the engine does not know."""


_CLASSES = {
    "not-lazy": NotLazy, "malformed": Malformed, "digest-mismatch": DigestMismatch, "limit-exceeded": LimitExceeded,
    "unverifiable": Unverifiable, "not-found": NotFound, "wrong-kind": WrongKind, "too-many-links": TooManyLinks,
    "protocol": Protocol, "unsupported": Unsupported}


def error_of(code):
    """The exception for an `error-code`."""
    return _CLASSES.get(code.tag, EngineError)(code.tag, code.value)
