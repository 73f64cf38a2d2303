"""How long one step of an engine takes, learnt online from what its dispatches took.

A step reads a chunk of prompts and writes one token for each running sequence. Its time is taken as

    t = c0 + g * tokens + k_kv * context + k_r * batch

with the prompt tokens it reads, the tokens of context reserved on the engine, and the sequences that run. The four
coefficients are fitted to relative errors by recursive least squares with forgetting, and none is ever negative.
"""

from __future__ import annotations

from sage_core.common.clock import SECOND

#: Seconds per step and per prompt token before anything is measured.
STEP, TOKEN = 2e-2, 1e-4
#: Prompt tokens of one step where the engine does not say.
CHUNK = 2_048
#: What an observation still counts for after the next one.
KEPT = 0.995
#: Weight of what was known before, in observations, and how much of each estimate becomes known: where all observations
#: are alike they say nothing about some direction, and there the estimate stays what it was.
HELD, FOLLOWED = 0.02, 0.02
#: How much longer than predicted a time may be before it counts as held up by something else.
OUTLYING = 3.0
#: Passes over the coefficients for each observation; the next one goes on from there.
PASSES = 3
#: Usual size of each coefficient: a fit is well conditioned only in units that are alike.
_UNITS = (STEP, TOKEN, 1e-6, 1e-3)
#: Shorter times and longer ones are errors of a clock, or of something else than the engine.
_SHORTEST, _LONGEST = 1e-6, 3_600.0
_Four = tuple[float, float, float, float]


class StepTime:
    """One engine's coefficients.

    Args:
        known: those of an engine like it.
        chunk: prompt tokens that a step reads at most; 0 where the engine does not say.
    """

    __slots__ = ("_chunk", "_held", "_left", "_right", "_weights", "batch")

    def __init__(self, known: _Four = (STEP, TOKEN, 0.0, 0.0), *, chunk: int = 0) -> None:
        self._chunk = chunk or CHUNK
        self._weights = [value / unit for value, unit in zip(known, _UNITS, strict=True)]
        self._held = list(self._weights)
        #: Weighted sums of products of what is observed: among themselves, each pair once, and with the times.
        self._left = [0.0] * 10
        self._right = [0.0] * 4
        #: Sequences that run together, of late.
        self.batch = 1.0

    @property
    def coefficients(self) -> _Four:
        """Seconds per step, per prompt token, and in each step per token of context and per sequence."""
        a, b, c, d = self._weights
        return a * _UNITS[0], b * _UNITS[1], c * _UNITS[2], d * _UNITS[3]

    def chunks(self, tokens: int) -> int:
        """Steps that reading so many prompt tokens takes."""
        return max(1, -(-tokens // self._chunk))

    def step(self, context: int, batch: int) -> float:
        """Predicted seconds of a step that reads no prompt."""
        each, _, per_context, per_sequence = self.coefficients
        return each + per_context * context + per_sequence * batch

    def read(self, tokens: int, context: int, batch: int) -> float:
        """Predicted seconds until so many prompt tokens are read."""
        return self.chunks(tokens) * self.step(context, batch) + self.coefficients[1] * tokens

    def share(self, tokens_in: int, tokens_out: int) -> float:
        """Engine-seconds that one sequence costs beside those that usually run with it."""
        each, per_token, per_context, per_sequence = self.coefficients
        alone = each / max(1.0, self.batch) + per_sequence + per_context * (tokens_in + tokens_out)
        return per_token * tokens_in + alone * tokens_out

    def learn(self, seconds: float, *, steps: float, tokens: float, context: float, batch: float) -> None:
        """Take in that so many steps took so long, reading so many prompt tokens in all."""
        if not _SHORTEST <= seconds <= _LONGEST or steps <= 0.0:
            return
        self.batch += 0.02 * (batch - self.batch)
        # Relative to what was predicted: errors of a long prompt must not drown those of a token. What took far longer
        # was held up by something else, more likely than not, and counts less the longer it took.
        a = steps * _UNITS[0]
        b = tokens * _UNITS[1]
        c = steps * context * _UNITS[2]
        d = steps * batch * _UNITS[3]
        one, two, three, four = self._weights
        scale = max(a * one + b * two + c * three + d * four, seconds / OUTLYING)
        a, b, c, d, ratio = a / scale, b / scale, c / scale, d / scale, seconds / scale
        products = (a * a, a * b, a * c, a * d, b * b, b * c, b * d, c * c, c * d, d * d)
        self._left = [KEPT * held + each for held, each in zip(self._left, products, strict=True)]
        times = (a * ratio, b * ratio, c * ratio, d * ratio)
        self._right = [KEPT * held + each for held, each in zip(self._right, times, strict=True)]
        self._solve()

    def _solve(self) -> None:
        # Coordinate descent, each coefficient held at 0 or above: four unknowns need no library, and nothing blows up
        # where what is known keeps every diagonal away from 0. Written out: it runs for each observation.
        aa, ab, ac, ad, bb, bc, bd, cc, cd, dd = self._left
        held = self._held
        a, b, c, d = self._weights
        right_a, right_b, right_c, right_d = (
            right + HELD * each for right, each in zip(self._right, held, strict=True)
        )
        for _ in range(PASSES):
            a = max(0.0, (right_a - ab * b - ac * c - ad * d) / (aa + HELD))
            b = max(0.0, (right_b - ab * a - bc * c - bd * d) / (bb + HELD))
            c = max(0.0, (right_c - ac * a - bc * b - cd * d) / (cc + HELD))
            d = max(0.0, (right_d - ad * a - bd * b - cd * c) / (dd + HELD))
        self._weights = [a, b, c, d]
        self._held = [before + FOLLOWED * (now - before) for before, now in zip(held, self._weights, strict=True)]


class Observed:
    """What a dispatch meets when it is sent, so that its first token can be held against it."""

    __slots__ = ("batch", "context", "tokens")

    def __init__(self, tokens: int, context: int, batch: int) -> None:
        self.tokens = tokens
        self.context = context
        self.batch = batch


def prompts_per_step(tokens: int, itl: float, window: int) -> float:
    """Prompt tokens that each step has read where so many were read within `window` ns of steps of `itl` seconds."""
    return tokens * itl * SECOND / window if window > 0 else 0.0
