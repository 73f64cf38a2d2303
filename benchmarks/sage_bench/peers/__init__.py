"""Scripts that other queues run in environments of their own: they import no SAGE, and speak as `drain` does."""
