"""The command line: arguments become calls, results become files and one-line messages.

In: argv. Out: exit codes 0 (done), 1 (failed), 2 (wrong usage), 130 (interrupted). Nothing else imports this
package."""
