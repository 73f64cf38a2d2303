"""What goes wrong with a request, in the shape that OpenAI's clients read."""

from __future__ import annotations

import errno
import math

import msgspec

from sage_core import (
    AttemptFailed,
    InvalidRequest,
    ModelError,
    NoEngine,
    RequestRejected,
    SageError,
    UnknownName,
    UsageError,
)

#: HTTP status → `type` of the error.
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}

#: What the system says when nothing more can be written.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ApiError(Exception):
    """An answer other than the one that was asked for."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        #: Seconds after which the same request has a chance.
        self.retry_after = retry_after

    @property
    def body(self) -> bytes:
        """The JSON document."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        # What SAGE shows in two lines on a terminal is one sentence after the other here.
        message = self.message.replace("\n  help: ", "; ")
        error = {"message": message, "type": kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers that belong to it."""
        if self.retry_after is None:
            return []
        return [(b"retry-after", b"%d" % max(1, math.ceil(self.retry_after)))]

    def __str__(self) -> str:
        return f"{self.status} {self.message}"


def explained(error: Exception) -> ApiError:
    """Say what any error means to the client; only what is a defect stays unexplained."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestRejected):
        return ApiError(429, str(error), code="overloaded", retry_after=error.retry_after)
    if isinstance(error, NoEngine):
        return ApiError(503, str(error), code="no_engine", retry_after=error.retry_after)
    if isinstance(error, AttemptFailed):
        return ApiError(502, str(error), code="engine_failed")
    if isinstance(error, InvalidRequest):
        return ApiError(400, str(error), code=error.code)
    if isinstance(error, ModelError):
        return ApiError(502, str(error), code="engine_failed")
    if isinstance(error, UsageError | UnknownName):
        return ApiError(400, str(error))
    if isinstance(error, SageError):
        return ApiError(500, str(error))
    if isinstance(error, OSError) and error.errno in _FULL:
        return ApiError(507, "the gateway's disk has no room for this", code="storage_full")
    return ApiError(500, "an error of the server; its log says more", code="internal_error")
