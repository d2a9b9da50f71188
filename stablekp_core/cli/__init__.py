"""The command line: arguments become calls, results become files and one-line messages.

In: argv. Out: exit codes 0 (done), 1 (failed), 2 (wrong usage), 130 (interrupted). One module per command holds its
arguments (`add_parser`) and what it does (`run`, which imports what it needs). Nothing else imports this package."""

from .program import main

__all__ = ["main"]
