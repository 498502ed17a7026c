"""A shop on loopback that speaks the sites' wire formats."""
