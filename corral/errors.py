"""The error tree: every failure a person may meet, by kind.

CorralError              anything that stops a request or a command
├── BadRequest           the caller asked for something that cannot be done as asked
│   ├── InvalidName      a model name, digest or path that breaks its grammar
│   ├── InvalidOption    an option whose value has the wrong type
│   ├── InvalidModelfile a Modelfile that breaks its grammar
│   ├── InvalidFormat    an output format that is neither JSON mode nor a schema
│   ├── ModelRequired    no model was named
│   ├── EmptyBody        a request without a body that needs one
│   ├── Unsupported      the model lacks the capability that was asked for
│   ├── ContextExceeded  the prompt or text is longer than the context, and may not be cut
│   ├── BodyTooLarge     the request's body has more bytes than are read
│   ├── BodyTooSlow      the request's body takes too long
│   └── NotHere          what is done only with a model in the store, for one that other servers have
├── KeyRequired          the server wants a key, and was given none that it knows
├── Forbidden
│   ├── RemoteModel      the name means a model that runs in the vendor's cloud
│   ├── ScopeMissing     the key is not for this
│   └── ModelForbidden   the key is not for this model
├── NotFound
│   ├── ModelNotFound    no manifest of that name in the store
│   ├── NotStored        the same, of one that other servers answer for
│   └── NotPublished     the registry or mirror that was asked has no such model
├── Busy                 trying again later may work
│   ├── QueueFull        as many requests wait as may
│   ├── LimitReached     the key has used what it may use a minute
│   ├── NotPlaced        no node has room for a model, or none that serves it can be reached
│   └── ServerStopping
├── ConfigError          a setting that cannot be used
├── StoreError           the disk or the store's files
│   └── DiskFull
├── SourceError          a registry, package index or file that models come from
│   ├── Unreachable      no connection to it: the next mirror may be tried
│   └── Unauthorized
├── ModelFileError       a model file that is broken, hostile or not supported
│   └── Quarantined      one that failed its checks or crashed the engine, and that nobody has released
├── TemplateError        a template that does not parse, or fails or overruns its budget when run
├── RequestLoop          a request that this server has sent itself, by way of others
├── EngineError          the engine failed
│   ├── EngineRefused    the engine calls the request bad
│   ├── EngineDied       the worker is gone
│   │   ├── EngineLost    the connection to a worker on another node broke
│   │   ├── EngineCrashed a fault of native code ended it while it loaded
│   │   └── DeviceFailed  a GPU or its driver failed
│   ├── UpstreamError    another server that answers for a model failed; the next one may be tried
│   │   └── UpstreamBusy it takes no more requests now
│   └── OutOfMemory
├── JobDied              a child process with a long computation is gone
└── InternalError        a mistake of Corral's own

`str(error)` is a sentence for the user: lower case, no full stop, the offending value quoted. Each dialect makes status
and envelope from kind and data, and the sentence where its clients match on other words (`server/ollama/errors.py`).
"""

import math
import re
from typing import ClassVar


class CorralError(Exception):
    """Anything that stops a request or a command. `kind` is its name in metrics: `bad_request`, `out_of_memory`."""

    kind: ClassVar[str] = "error"

    def __init_subclass__(cls) -> None:
        cls.kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__.removesuffix("Error")).lower()


class BadRequest(CorralError):
    """The caller asked for something that cannot be done as asked."""


class InvalidName(BadRequest):
    """A model name, digest or relative path that breaks its grammar."""


class InvalidOption(BadRequest):
    """A runtime option whose value has the wrong type; `expected` says which it takes: `type integer`."""

    def __init__(self, name: str, expected: str) -> None:
        super().__init__(f'option "{name}" must be of {expected}')
        self.name = name
        self.expected = expected


class InvalidFormat(BadRequest):
    """An output format that is neither JSON mode nor a JSON Schema; `given` is its JSON text, quoted."""

    def __init__(self, given: str) -> None:
        super().__init__(f'invalid format: {given}; expected "json" or a valid JSON Schema object')
        self.given = given


class InvalidModelfile(BadRequest):
    """A Modelfile that cannot be read; `line`, counted from 1, is where, 0 where no line is to blame."""

    def __init__(self, sentence: str, line: int = 0) -> None:
        super().__init__(sentence)
        self.line = line


class ModelRequired(BadRequest):
    """A request that names no model."""

    def __init__(self) -> None:
        super().__init__("model is required")


class EmptyBody(BadRequest):
    """A request without a body that needs one."""

    def __init__(self) -> None:
        super().__init__("missing request body")


class Unsupported(BadRequest):
    """A model that lacks a capability. `model`: its name as the request gave it; `full_name`: with registry and tag."""

    def __init__(self, model: str, capability: str, full_name: str = "") -> None:
        super().__init__(f'"{model}" does not support {capability}')
        self.model = model
        self.capability = capability
        self.full_name = full_name or model


class ContextExceeded(BadRequest):
    """A prompt or text that is longer than the context and may not be cut; lengths in tokens, 0 where not counted."""

    def __init__(self, sentence: str, *, tokens: int = 0, limit: int = 0) -> None:
        super().__init__(sentence)
        self.tokens = tokens
        self.limit = limit


class BodyTooLarge(BadRequest):
    """A request's body of more than `limit` bytes, or one whose values take more."""

    def __init__(self, limit: int, what: str = "request body is larger than") -> None:
        super().__init__(f"{what} {limit} bytes")
        self.limit = limit


class BodyTooSlow(BadRequest):
    """A request whose body does not come, or only a little at a time."""

    def __init__(self) -> None:
        super().__init__("the request body comes too slowly")


class NotHere(BadRequest):
    """What is done only with a model in the store was asked of one that other servers answer for."""

    def __init__(self, model: str, what: str) -> None:
        super().__init__(f'"{model}" is answered by other servers, which take no {what}')
        self.model = model


class KeyRequired(CorralError):
    """The server wants a key, and was given none that it knows: the same error, whatever was wrong with it."""

    def __init__(self) -> None:
        super().__init__(
            "this server wants an API key that it knows: set OLLAMA_API_KEY, or send the header "
            '"Authorization: Bearer KEY"; on its machine, `corral keys create NAME` makes one'
        )


class Forbidden(CorralError):
    """What is not done for this caller, whatever the request says."""


class RemoteModel(Forbidden):
    """A name that means a model in the vendor's cloud (docs/spec/api.md §3)."""

    def __init__(self, name: str) -> None:
        super().__init__(f'"{name}" runs in the cloud of its vendor, which Corral never asks')
        self.name = name


class ScopeMissing(Forbidden):
    """The key has another scope than what was asked for needs."""

    def __init__(self, needed: str, scope: str) -> None:
        super().__init__(f'this needs a key of the scope "{needed}", and yours has "{scope}"')
        self.needed = needed


class ModelForbidden(Forbidden):
    """The key is for other models, whether this one is there or not. `name`: the whole name."""

    def __init__(self, name: str) -> None:
        super().__init__(f'your key is not for the model "{name}"')
        self.name = name


class NotFound(CorralError):
    """Something that was named and does not exist."""


class ModelNotFound(NotFound):
    """No manifest of that name in the store. `name`: as it was asked for."""

    def __init__(self, name: str) -> None:
        super().__init__(f"model '{name}' not found")
        self.name = name


class NotStored(NotFound):
    """A model that is to be changed is not in the store: other servers answer for it."""

    def __init__(self, name: str) -> None:
        super().__init__(f'model "{name}" is not in the store: other servers answer for it, as corral.toml says')
        self.name = name


class NotPublished(NotFound):
    """The registry or mirror that was asked has no such model."""


class Busy(CorralError):
    """Not now; trying again later may work."""


class QueueFull(Busy):
    """As many requests wait as may."""

    def __init__(self) -> None:
        super().__init__("server busy, please try again: too many requests are waiting")


class LimitReached(Busy):
    """The key has used what it may use a minute. `wait`: seconds until it may go on."""

    def __init__(self, wait: float) -> None:
        self.wait = max(1, math.ceil(wait))
        super().__init__(f"your key has reached its limit for a minute; try again in {self.wait} seconds")


class NotPlaced(Busy):
    """No node has room for a model, or none that serves it can be reached."""


class ServerStopping(Busy):
    """The server ends and takes on nothing new."""

    def __init__(self) -> None:
        super().__init__("the server is stopping")


class ConfigError(CorralError):
    """A setting that cannot be used, found at start."""


class StoreError(CorralError):
    """The disk or the store's files failed."""


class DiskFull(StoreError):
    """No space left where models are kept."""


class SourceError(CorralError):
    """A registry, package index or file that models come from failed."""


class Unreachable(SourceError):
    """No connection to a source could be made, so the next mirror may be tried."""


class Unauthorized(SourceError):
    """A source refused our credentials, or wants some."""


class ModelFileError(CorralError):
    """A model file that is broken, hostile or of a kind that is not supported."""


class Quarantined(ModelFileError):
    """A model's file that failed its checks or crashed the engine. `model`: its name; `reason`: what was found."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(
            f'model "{model}" is in quarantine: {reason}\n`corral quarantine release {model}` loads it all the same'
        )
        self.model = model
        self.reason = reason


class TemplateError(CorralError):
    """A template that does not parse, or that fails or overruns its budget when run."""


class EngineError(CorralError):
    """The engine failed at a request or a load. `code`: the HTTP status it answered with, 0 where it gave none."""

    def __init__(self, sentence: str, *, code: int = 0) -> None:
        super().__init__(sentence)
        self.code = code


class EngineRefused(EngineError):
    """The engine calls the request bad."""


class EngineDied(EngineError):
    """The worker is gone; the next request starts a new one."""


class EngineLost(EngineDied):
    """The connection to a worker on another node broke: the request may be sent to another one that has not begun."""


class EngineCrashed(EngineDied):
    """A fault of native code ended the worker while it loaded a model. `how`: the signal, as the system names it."""

    def __init__(self, sentence: str, *, how: str) -> None:
        super().__init__(sentence)
        self.how = how


class DeviceFailed(EngineDied):
    """The engine ended by itself because a GPU or its driver failed."""


class OutOfMemory(EngineError):
    """The engine, or another child process, could not get the memory it needed."""


class UpstreamError(EngineError):
    """Another server that answers for a model failed. `is_gone`: it will fail other requests, too, for now."""

    def __init__(self, upstream: str, reason: str, *, code: int = 502, is_gone: bool = True) -> None:
        super().__init__(f'upstream "{upstream}" {reason}', code=code)
        self.is_gone = is_gone


class UpstreamBusy(UpstreamError):
    """Another server takes no more requests for `wait` seconds."""

    def __init__(self, upstream: str, reason: str, wait: float) -> None:
        super().__init__(upstream, reason, code=503, is_gone=False)
        self.wait = wait


class RequestLoop(CorralError):
    """A request that came by way of this server already, or of too many others."""


class JobDied(CorralError):
    """A child process with a long computation ended before it was done."""


class InternalError(CorralError):
    """A mistake of Corral's own; the log has what happened."""

    def __init__(self) -> None:
        super().__init__("internal server error, see the log of corral")


def reason_of(error: OSError) -> str:
    """What the system says went wrong, as the end of a sentence."""
    return (error.strerror or str(error)).lower()
