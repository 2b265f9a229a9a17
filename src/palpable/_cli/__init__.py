"""The command line: `palpable` and its commands, one module each, loaded when called."""
