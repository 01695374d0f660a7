"""The command line: a module for each group of commands, over the same core and jobs as the UI."""
