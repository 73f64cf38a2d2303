"""What people feel of a batch tenant at ten times their load, under one policy."""

from __future__ import annotations

import msgspec

from sage_bench.results import Figure, Measured
from sage_bench.suite import Bench
from sage_bench.traffic import WORKLOADS, serve
from sage_core.testing import percentile


class Isolation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Serves interactive calls alone and beside batch, on modelled engines, one seed a repeat."""

    scheduler: str
    selector: str = ""
    #: Interactive calls a second; batch is ten times as many.
    rate: float = 30.0
    seconds: float = 20.0
    #: Aim for the ratio.
    aim: float | None = None

    def measure(self, bench: Bench) -> Measured:
        """Compare p99 of the first token with its value without batch."""
        ratio, beside, met, batch, waits, bulk_waits = [], [], [], [], [], []
        for seed in range(bench.seed, bench.seed + bench.repeat):
            calls = WORKLOADS["chat-beside-batch"](seed, self.rate, self.seconds)
            alone = serve([call for call in calls if call.id.startswith("chat")], self.scheduler, self.selector)
            both = serve(calls, self.scheduler, self.selector)
            chat, bulk = both.of("chat"), both.of("bulk")
            p99 = [percentile([each.ttft or 1e9 for each in found], 0.99) for found in (alone.answers, chat)]
            ratio.append(p99[1] / p99[0])
            beside.append(p99[1])
            met.append(sum(each.met for each in chat) / len(chat))
            # While both are there: what is done later is nobody's loss.
            done = [
                each.call
                for each in bulk
                if each.outcome == "done" and each.call.at + (each.total or 0) <= self.seconds
            ]
            batch.append(sum(call.tokens_in + call.tokens_out for call in done) / self.seconds)
            waits.append(max(each.wait or 0.0 for each in chat))
            bulk_waits.append(max(each.wait or 0.0 for each in bulk))

        def figure(name: str, unit: str, values: list[float], **more: object) -> Figure:
            return msgspec.convert({"name": name, "unit": unit, "values": values, "over": "seeds", **more}, Figure)

        return Measured(
            figures=(
                figure("p99 first token beside batch / alone", "×", ratio, better="lower", aim=self.aim),
                figure("p99 first token beside batch", "s", beside, better="lower", aim=0.5 if self.aim else None),
                figure("people within 500 ms and 30 ms a token", "share", met, better="higher"),
                figure("batch done meanwhile", "tokens/s", batch, better="higher"),
                figure("longest wait of people", "s", waits, better="lower"),
                figure("longest wait of batch", "s", bulk_waits, better="lower"),
            ),
            facts={"scheduler": self.scheduler, "selector": self.selector, "rate": self.rate, "seconds": self.seconds},
        )
