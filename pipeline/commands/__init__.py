"""The command line: one file a command, its arguments on top, heavy imports inside."""
