"""Processes for measuring gateways: the upstream they stand before, and the load that comes from the other side."""
