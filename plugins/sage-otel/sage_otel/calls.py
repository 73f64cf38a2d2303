"""What the record of a decision says of a model call, under OpenTelemetry's names for generative AI."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sage_core import Request

#: Who serves the models, as far as whoever asks can tell: engines come and go behind the control plane.
PROVIDER = "sage"
_OPERATIONS = {"generate": "chat", "embed": "embeddings", "rerank": "rerank"}


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A model call that has ended, or was refused; times in seconds, and 0 where there is none."""

    request: str
    operation: str
    model: str
    tenant: str
    service_class: str
    run: str
    step: str
    engine: str
    policy: str
    outcome: str
    reason: str
    #: From arrival to the end, of that until it was sent to an engine, and from then to the first token.
    total: float
    wait: float
    first: float
    #: Tokens as the engine counted them.
    tokens_in: int
    tokens_out: int
    cached: int
    attempts: int
    max_tokens: int

    @property
    def error(self) -> str:
        """What kind of an end it was, where it was no good one."""
        return "" if self.outcome == "done" else self.outcome

    @property
    def between(self) -> float:
        """Seconds between its tokens; 0 where there are no two of them."""
        writing = self.total - self.wait - self.first
        return max(0.0, writing) / (self.tokens_out - 1) if self.first and self.tokens_out > 1 else 0.0

    @property
    def attributes(self) -> dict[str, str | int | float]:
        """What spans and measurements have in common."""
        found: dict[str, str | int | float] = {
            "gen_ai.operation.name": self.operation,
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": self.model,
        }
        return {**found, "error.type": self.error} if self.error else found


class _Decision(msgspec.Struct):
    kind: str
    model: str
    tenant: str
    service_class: str
    run: str
    step: str
    engine: str
    policy: str
    outcome: str
    reason: str
    total: int
    wait: int
    ttft: float
    counted_in: int
    counted_out: int
    cached: int
    attempts: int


def call_of(request: Request, decision: Mapping[str, object]) -> Call | None:
    """The call that a line of the decision log tells of; None for one that no model answers."""
    line = msgspec.convert(decision, _Decision)
    operation = _OPERATIONS.get(line.kind)
    if operation is None:
        return None
    if line.kind == "generate" and (request.prompt or request.path.endswith("/v1/completions")):
        operation = "text_completion"
    return Call(
        request=request.id,
        operation=operation,
        model=line.model,
        tenant=line.tenant,
        service_class=line.service_class,
        run=line.run,
        step=line.step,
        engine=line.engine,
        policy=line.policy,
        outcome=line.outcome,
        reason=line.reason,
        total=line.total / 1e9,
        wait=line.wait / 1e9,
        first=line.ttft,
        tokens_in=line.counted_in,
        tokens_out=line.counted_out,
        cached=line.cached,
        attempts=line.attempts,
        max_tokens=request.max_tokens if line.kind == "generate" else 0,
    )
