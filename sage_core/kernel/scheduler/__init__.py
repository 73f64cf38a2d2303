"""Where work goes: filter, score, pick."""
