"""L3: the machinery: dataflow, runtime, scheduling and the control plane."""
