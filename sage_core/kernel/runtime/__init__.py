"""From a plan to results: jobs, workers, and the execution of a stage over a partition."""
