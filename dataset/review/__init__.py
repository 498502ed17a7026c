"""The `review` command: a local web page for decisions on doubtful images."""
