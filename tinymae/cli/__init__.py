"""The command line: one file for each family of commands, its options and its functions together."""
