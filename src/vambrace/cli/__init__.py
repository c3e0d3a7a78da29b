"""The command line: arguments in, words out. Everything it does is one call into the library."""
