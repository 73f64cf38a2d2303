"""From a request to what a scheduler orders: rules and learnt sizes only, no model and no I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from sage_core.common.clock import SECOND
from sage_core.common.config import ClassConfig
from sage_core.common.errors import BadValue, ConfigError
from sage_core.common.records import Lane, Record, ServiceClass, Work
from sage_core.kernel.control_plane.events import Outline
from sage_core.kernel.dataflow import units

#: Bytes per token before anything is learnt: English text under the usual vocabularies.
BYTES_PER_TOKEN = 4.0
#: Weight of one observation in the running ratio.
LEARNING = 0.1
#: Observations of fewer bytes say more about special tokens than about text.
LEAST_BYTES = 64
#: Tokens a model adds around each text.
FRAME = 2
#: Share of answers that are no longer than their estimate: with it a full engine's reservations overflow about once in
#: a thousand times, and at 0.9 they are twice what is used (docs/control-plane.md has the figures).
QUANTILE = 0.8
#: What an observation still counts for after the next one; how many are needed; and keys that are remembered.
KEPT, ENOUGH, REMEMBERED = 0.99, 4, 4_096
#: Output tokens expected at most before anything is learnt.
GUESS = 256
#: Share of the time to the end that the first token is given at least: an estimate that is off must not doom a request.
LEAST_SHARE = 4


class Lengths:
    """A rolling quantile of lengths, in buckets that double."""

    __slots__ = ("_counts", "_total", "_weight", "seen")

    def __init__(self) -> None:
        self._counts = [0.0] * 32
        self._total = 0.0
        # The newest weighs most: growing weights spare a pass over the buckets for each observation.
        self._weight = 1.0
        self.seen = 0

    def add(self, length: int) -> None:
        """Take one in."""
        self.seen += 1
        self._weight /= KEPT
        self._counts[min(31, length.bit_length())] += self._weight
        self._total += self._weight
        if self._weight > 1e12:
            self._counts = [count / self._weight for count in self._counts]
            self._total /= self._weight
            self._weight = 1.0

    def quantile(self, share: float) -> int:
        """The length that this share does not exceed; within a bucket, logarithms of lengths count as spread evenly."""
        left = share * self._total
        for bucket, count in enumerate(self._counts):
            if count and left <= count:
                return round(math.ldexp(math.exp2(left / count), bucket - 1))
            left -= count
        return 1 << 31


class _Class(Record):
    """Nanoseconds of a service class."""

    ttft: int | None = None
    tpot: int | None = None
    end_to_end: int | None = None


class RequestClassifier:
    """Names a request's lane, deadlines, class and sizes; learns bytes per token and lengths of answers.

    Args:
        classes: what service classes ask for where a request does not say.
        pace: predicted seconds between output tokens in a lane.
    """

    def __init__(
        self,
        classes: Mapping[ServiceClass, ClassConfig] | None = None,
        pace: Callable[[Lane], float] = lambda lane: 0.02,
    ) -> None:
        self._classes: dict[str, _Class] = {}
        self.ask(classes or {})
        self._pace = pace
        self._ratio: dict[Lane, float] = {}
        #: Lengths of answers: by tenant, lane and route, and by lane; the latest used are the last.
        self._written: dict[tuple[str, ...], Lengths] = {}

    def ask(self, classes: Mapping[ServiceClass, ClassConfig]) -> None:
        """Let service classes ask for this from here on; raises `ConfigError` and changes nothing where it is wrong."""
        self._classes = {name: _class(name, config) for name, config in classes.items()}

    def classify(self, outline: Outline, now: int) -> Work:
        """Describe the request as one work; the manager cuts large embed requests into several. Pure."""
        caller = outline.caller
        tokens_out = self._expected_output(outline)
        stream = outline.kind == "generate"
        asked = self._classes.get(caller.service_class, _NOTHING_ASKED)
        within = self._within(outline, asked, tokens_out)
        return Work(
            id=outline.id,
            # Finding token limits is quick and uses no seat, so it must not wait behind a batch.
            lane=tokenizing(outline.lane) if outline.kind == "tokenize" else outline.lane,
            kind=outline.kind,
            arrival=now,
            deadline=None if within is None else now + within,
            tpot=(caller.tpot if caller.tpot is not None else asked.tpot) if stream else None,
            tenant=caller.tenant,
            service_class=caller.service_class,
            priority=caller.priority,
            tokens_in=sum(self.tokens(outline)),
            tokens_out=tokens_out,
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
            for key in _keys(outline):
                # Put back as the latest: tenants and routes come from outside, and may be any number.
                lengths = self._written.pop(key) if key in self._written else Lengths()
                lengths.add(tokens_out)
                self._written[key] = lengths
            while len(self._written) > REMEMBERED:
                del self._written[next(iter(self._written))]

    def _within(self, outline: Outline, asked: _Class, tokens_out: int) -> int | None:
        """Nanoseconds from arrival to the deadline."""
        caller = outline.caller
        if outline.kind != "generate":
            given = caller.remaining if caller.remaining is not None else caller.ttft
            if given is not None:
                return given
            return asked.end_to_end if asked.end_to_end is not None else asked.ttft
        if caller.ttft is not None:
            return caller.ttft
        if caller.remaining is None and asked.ttft is not None:
            return asked.ttft
        whole = caller.remaining if caller.remaining is not None else asked.end_to_end
        if whole is None:
            return None
        writing = round(tokens_out * self._pace(outline.lane) * SECOND)
        return max(whole // LEAST_SHARE, whole - writing)

    def _expected_output(self, outline: Outline) -> int:
        if outline.kind != "generate":
            return 0
        for key in _keys(outline):
            lengths = self._written.get(key)
            if lengths is not None and lengths.seen >= ENOUGH:
                return max(1, min(outline.max_tokens, lengths.quantile(QUANTILE)))
        return min(outline.max_tokens, GUESS)


_NOTHING_ASKED = _Class()


def _keys(outline: Outline) -> tuple[tuple[str, ...], ...]:
    return (outline.caller.tenant, outline.lane, outline.caller.route), (outline.lane,)


def _class(name: str, config: ClassConfig) -> _Class:
    def ns(text: str) -> int | None:
        return round(units.seconds(text) * SECOND) if text else None

    try:
        return _Class(ttft=ns(config.ttft), tpot=ns(config.tpot), end_to_end=ns(config.end_to_end))
    except BadValue as error:
        raise ConfigError(f"[classes.{name}]", str(error)) from None


def tokenizing(lane: Lane) -> Lane:
    """The lane of tokenize requests beside a pool's lane."""
    return f"{lane}:tokenize"


def pool_of(work: Work) -> Lane:
    """The pool whose engines serve a work, whichever of its lanes it waits in."""
    return work.lane.removesuffix(":tokenize")
