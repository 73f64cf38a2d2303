"""What suites can measure: one module, one record of options, one way of measuring."""
