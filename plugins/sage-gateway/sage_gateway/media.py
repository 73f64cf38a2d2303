"""Images, sounds and files in messages: only what is in the request itself; nothing is fetched from where it points.

The gateway fetches nothing, but an engine would: vLLM opens every address it is given, from inside the network where it
stands. So a request that holds one goes no further, unless ``[gateway] remote_media`` says that the engines may see it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sage_gateway.asked import Message
from sage_gateway.errors import ApiError

#: Content in the address itself.
_INLINE = re.compile(r"\s*data:", re.IGNORECASE)
#: What a library may take for an address, whatever the field is called.
_ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]*:[/\\]{2}|\s*file:", re.IGNORECASE)


def refuse_remote(messages: Iterable[Message]) -> None:
    """Raise `ApiError` 400 where a part of a message points at something outside of the request."""
    for number, message in enumerate(messages):
        if isinstance(message.content, list):
            for part in message.content:
                for name in _pointing(part):
                    param = f"messages[{number}].content"
                    problem = f"{name} must be a data: URL; nothing is fetched from an address that a client names"
                    raise ApiError(400, problem, code="url_not_allowed", param=param)


def _pointing(part: Mapping[str, Any]) -> Iterator[str]:
    for name, value in part.items():
        if isinstance(value, str):
            named = name.lower().endswith(("url", "uri"))
            if name != "text" and ((named and not _INLINE.match(value)) or _ADDRESS.match(value)):
                yield name
        elif isinstance(value, dict):
            yield from _pointing(value)
        elif isinstance(value, list):
            yield from _pointing({f"{name}[{place}]": each for place, each in enumerate(value)})
