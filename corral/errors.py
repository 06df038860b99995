"""The error tree: every failure a person may meet.

CorralError            500  anything that stops a request or a command
├── BadRequest         400  the caller asked for something that cannot be done as asked
│   ├── InvalidName    400  a model name, digest or path that breaks its grammar
│   └── InvalidOption  500  an option whose value is of a wrong type; 500 is what clients of Ollama know
├── Forbidden          403
├── NotFound           404
│   └── ModelNotFound  404  no manifest of that name in the store
├── Busy               503  the queue is full
├── ConfigError        500  a setting that cannot be used
├── StoreError         500  the disk or the store's files
│   └── DiskFull       500
├── SourceError        500  a registry, package index or file that models come from
│   ├── Unreachable    500  nobody answered there: the next mirror may be tried
│   └── Unauthorized   500
├── ModelFileError     500  a model file that is broken, hostile or not supported
├── TemplateError      500  a template that does not parse, or fails or overruns its budget when run
└── EngineError        500  the engine refused or failed
    ├── EngineDied     500  the worker is gone
    └── OutOfMemory    500

`str(error)` is the sentence the user reads: lower case, no full stop, the offending value quoted. Knows no dialect.
"""


class CorralError(Exception):
    """Anything that stops a request or a command; `status` is the HTTP status it is answered with."""

    status = 500

    def __init__(self, sentence: str, *, status: int | None = None) -> None:
        super().__init__(sentence)
        if status is not None:
            self.status = status


class BadRequest(CorralError):
    """The caller asked for something that cannot be done as asked."""

    status = 400


class InvalidName(BadRequest):
    """A model name, digest or relative path that breaks its grammar."""


class InvalidOption(BadRequest):
    """An option whose value is of a wrong type: its `name`, and what was `expected` (`type integer`)."""

    status = 500

    def __init__(self, name: str, expected: str) -> None:
        super().__init__(f'option "{name}" must be of {expected}')
        self.name = name
        self.expected = expected


class Forbidden(CorralError):
    status = 403


class NotFound(CorralError):
    status = 404


class ModelNotFound(NotFound):
    """No manifest of that name in the store."""


class Busy(CorralError):
    """The queue is full; trying again later may work."""

    status = 503


class ConfigError(CorralError):
    """A setting that cannot be used, found at start."""


class StoreError(CorralError):
    """The disk or the store's files failed."""


class DiskFull(StoreError):
    """No space left where models are kept."""


class SourceError(CorralError):
    """A registry, package index or file that models come from failed."""


class Unreachable(SourceError):
    """Nobody answered at a source, so the next mirror may be tried."""


class Unauthorized(SourceError):
    """A source refused our credentials, or wants some."""


class ModelFileError(CorralError):
    """A model file that is broken, hostile or of a kind that is not supported."""


class TemplateError(CorralError):
    """A template that does not parse, or that fails or overruns its budget when run."""


class EngineError(CorralError):
    """The engine refused a request or failed at it."""


class EngineDied(EngineError):
    """The worker is gone; the next request starts a new one."""


class OutOfMemory(EngineError):
    """The engine could not get the memory it needed."""
