"""The SQL catalogue: mapped classes, sessions with migrations, and shared queries."""
