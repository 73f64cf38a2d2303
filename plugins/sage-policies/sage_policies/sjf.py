"""The shortest work first."""

from __future__ import annotations

from sage_core import Work
from sage_policies.lanes import LaneScheduler


class ShortestFirst(LaneScheduler):
    """Orders by predicted engine-seconds; what has waited for `aging` seconds goes first, oldest first.

    Good: when sizes differ by orders of magnitude and means count: it has the least mean wait of all orders that do not
    interrupt. It needs only rough predictions. Loses: long prompts pay for it, and under lasting overload they wait for
    `aging`; deadlines are not looked at; a tenant who sends short works takes all.

    Source: L. Schrage, "A proof of the optimality of the shortest remaining processing time discipline" (1968); for
    language models "Efficient LLM Scheduling by Learning to Rank" (NeurIPS 2024), which also bounds the wait.
    """

    def rank(self, work: Work) -> float:
        return work.cost
