"""Tag photos that have no tag, from the command line and over HTTP."""
