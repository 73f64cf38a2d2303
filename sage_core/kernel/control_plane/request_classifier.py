"""From a request to what a scheduler orders: rules and learnt ratios only, no model and no I/O."""

from __future__ import annotations

from sage_core.common.records import Lane, Work
from sage_core.kernel.control_plane.events import Outline

#: Bytes per token before anything is learnt: English text under the usual vocabularies.
BYTES_PER_TOKEN = 4.0
#: Weight of one observation in the running ratio.
LEARNING = 0.1
#: Observations of fewer bytes say more about special tokens than about text.
LEAST_BYTES = 64
#: Tokens a model adds around each text.
FRAME = 2


class RequestClassifier:
    """Names a request's lane, deadline, class and sizes; learns bytes per token for each lane."""

    def __init__(self) -> None:
        self._ratio: dict[Lane, float] = {}
        self._written: dict[tuple[Lane, str], float] = {}

    def classify(self, outline: Outline, now: int) -> Work:
        """Describe the request as one work; the manager cuts large embed requests into several. Pure."""
        caller = outline.caller
        until = [each for each in (caller.ttft, caller.remaining) if each is not None]
        return Work(
            id=outline.id,
            # Finding token limits is quick and uses no seat, so it must not wait behind a batch.
            lane=tokenizing(outline.lane) if outline.kind == "tokenize" else outline.lane,
            kind=outline.kind,
            arrival=now,
            deadline=now + min(until) if until else None,
            tpot=caller.tpot,
            tenant=caller.tenant,
            service_class=caller.service_class,
            priority=caller.priority,
            tokens_in=sum(self.tokens(outline)),
            tokens_out=self._expected_output(outline),
            rows=max(1, len(outline.sizes)),
            prefix=outline.prefix,
        )

    def tokens(self, outline: Outline) -> list[int]:
        """Estimate the tokens of each row; at least one, and monotonic in the size."""
        ratio = self._ratio.get(outline.lane, BYTES_PER_TOKEN)
        return [FRAME + int(size / ratio + 0.999) for size in outline.sizes]

    def learn(self, outline: Outline, tokens_in: int, tokens_out: int) -> None:
        """Take the counts of a finished request; zeros mean unknown."""
        size = sum(outline.sizes)
        if tokens_in > 0 and size >= LEAST_BYTES:
            ratio = self._ratio.get(outline.lane, BYTES_PER_TOKEN)
            self._ratio[outline.lane] = ratio + LEARNING * (size / tokens_in - ratio)
        if outline.kind == "generate" and tokens_out > 0:
            key = (outline.lane, outline.caller.tenant)
            written = self._written.get(key, float(tokens_out))
            self._written[key] = written + LEARNING * (tokens_out - written)

    def _expected_output(self, outline: Outline) -> int:
        if outline.kind != "generate":
            return 0
        written = self._written.get((outline.lane, outline.caller.tenant), float(outline.max_tokens))
        return min(outline.max_tokens, int(written + 0.999))


def tokenizing(lane: Lane) -> Lane:
    """The lane of tokenize requests beside a pool's lane."""
    return f"{lane}:tokenize"


def pool_of(work: Work) -> Lane:
    """The pool whose engines serve a work, whichever of its lanes it waits in."""
    return work.lane.removesuffix(":tokenize")
