"""What Anthropic's routes take and answer, for those who read the API's document. Source: spec api §20."""

from corral.server.anthropic.wire import WireMessagesRequest
from corral.server.http.operation import (
    INTEGER,
    SOME_ITEMS,
    SOME_TEXT,
    STRING,
    Operation,
    a_list,
    an_object,
    constant,
    nullable,
)

_MESSAGE = an_object(
    {
        "id": STRING,
        "type": constant("message"),
        "role": constant("assistant"),
        "model": STRING,
        "content": a_list(an_object({"type": STRING})),
        "stop_reason": nullable(STRING),
        "stop_sequence": nullable(STRING),
        "usage": an_object({"input_tokens": INTEGER, "output_tokens": INTEGER}),
    }
)
_COUNTED = {"model": SOME_TEXT, "messages": SOME_ITEMS}

MESSAGES = Operation(
    takes=WireMessagesRequest,
    requires={**_COUNTED, "max_tokens": {"type": "integer", "minimum": 1}},
    answers=_MESSAGE,
    events="With `stream`: named events from `message_start` to `message_stop`, blocks of content between them.",
)
COUNT_TOKENS = Operation(takes=WireMessagesRequest, requires=_COUNTED, answers=an_object({"input_tokens": INTEGER}))
