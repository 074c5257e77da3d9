"""The commands of the command line, a module per kind: they read arguments, call the library and print."""
