"""Review a catalogue in the browser: queues, decisions, pages and their server."""
