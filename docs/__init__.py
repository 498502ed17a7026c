"""Sources of the documentation and scripts that draw its pictures."""
