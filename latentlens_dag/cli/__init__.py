"""The commands of the command line: they read arguments, call the library and print."""
