"""L6: the `sage` command, one small module per command group."""
