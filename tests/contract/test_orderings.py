"""The orderings that come with the core keep the contract."""

from __future__ import annotations

from sage_core.builtins import Fifo, Priority
from sage_core.testing import OrderingContract


class TestFifo(OrderingContract):
    make = Fifo


class TestPriority(OrderingContract):
    make = Priority
