"""L5: public fakes and contract suites for plugin authors."""
