"""Part *allocate*: whose turn it is, among the classes and within each among the tenants."""

from __future__ import annotations

from collections.abc import Iterator

from sage_core import Finished, ServiceClass, Work
from sage_hybrid.tenants import Tenants

CLASSES: tuple[ServiceClass, ...] = ("interactive", "standard", "batch")
#: A share that could not be used is remembered up to so many engine-seconds, or what the first work there takes.
SAVED = 20.0
#: What a tenant's turn is worth in strict mode (s): less than any work.
EXACT = 1e-9


class Allocate:
    """The queues of one lane: the highest class first, but every lower class that waits has a floor of its own.

    A dispatch of a class credits each lower class that waits with its floor of the engine-seconds; when the credit
    covers the first work there, that goes next. So a lower class is never shut out, and never gets more than its floor
    at the cost of a higher one.

    Sources: deficit round robin (Shreedhar and Varghese, 1995) for the floors; llm-d documents how strict bands starve.

    Args:
        on: off keeps everything in one queue.
        floors: share of the engine-seconds by class.
        quantum: see `Tenants`.
        strict: tenants go by exact counters.
    """

    def __init__(self, *, on: bool, floors: dict[ServiceClass, float], quantum: float, strict: bool) -> None:
        self.on = on
        self._floors = floors
        each = None if not on else EXACT if strict else quantum
        self.queues: dict[ServiceClass, Tenants] = {name: Tenants(each) for name in (CLASSES if on else CLASSES[:1])}
        self._due = dict.fromkeys(self.queues, 0.0)

    def __len__(self) -> int:
        return sum(map(len, self.queues.values()))

    @property
    def cost(self) -> float:
        """Engine-seconds of everything queued."""
        return sum(queue.cost for queue in self.queues.values())

    def of(self, work: Work) -> Tenants:
        """The queue a work belongs to."""
        return self.queues[work.service_class if self.on else CLASSES[0]]

    def turns(self) -> Iterator[tuple[Tenants, bool]]:
        """Queues with works in the order in which to look at them; true for one whose floor is due."""
        for name in reversed(self.queues):
            head = self.queues[name].head() if self._due[name] > 0.0 else None
            if head is not None and self._due[name] >= head.cost:
                yield self.queues[name], True
        for queue in self.queues.values():
            if len(queue):
                yield queue, False

    def serve(self, work: Work, *, floor: bool) -> None:
        """Let a work go, charge its tenant, and credit the lower classes that wait."""
        self.of(work).serve(work)
        if not self.on:
            return
        if floor:
            self._due[work.service_class] -= work.cost
        below = False
        for name, queue in self.queues.items():
            if below and len(queue):
                due = self._due[name] + self._floors.get(name, 0.0) * work.cost
                if due > SAVED and (head := queue.head()) is not None:
                    due = min(due, max(SAVED, head.cost))
                self._due[name] = due
            below = below or name == work.service_class

    def settle(self, event: Finished) -> None:
        """Charge what a work took in place of what was predicted: by its tokens, of which an answer's weigh double."""
        work = event.work
        predicted = work.tokens_in + 2 * work.tokens_out
        # An engine that counts nothing is taken at its prediction, unless it failed.
        written = event.tokens_out or (work.tokens_out if event.ok else 0)
        took = (event.tokens_in or work.tokens_in) - event.cached + 2 * written
        if predicted:
            self.of(work).charge(work, work.cost * (took / predicted - 1.0))

    def refund(self, work: Work) -> None:
        """Take a charge back: the engine was lost."""
        self.of(work).charge(work, -work.cost)
