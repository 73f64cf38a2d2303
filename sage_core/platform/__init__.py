"""L2: what outlives a process: the job store, artifacts, nodes."""
