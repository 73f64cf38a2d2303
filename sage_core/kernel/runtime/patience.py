"""Outlasting a store that is away: the same call again, at growing intervals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from sage_core.common.errors import StoreUnavailable
from sage_core.common.telemetry import log

T = TypeVar("T")

#: Seconds before the store is asked again: at first, and at most.
AWAY, LONGEST = 0.05, 2.0


async def patiently(act: Callable[[], T]) -> T:
    """Do something to the store, again and again while it is away; what is done twice must be harmless."""
    wait = AWAY
    while True:
        try:
            return act()
        except StoreUnavailable as error:
            log("store_away", error=error)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST)
