"""Reviewing a catalogue on a local web page: queues, decisions, the page itself."""
