"""An app of the tests: a table of articles."""
