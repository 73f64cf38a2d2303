"""From a workflow file, or the fluent API, to a typed graph of grains and a plan of stages."""
