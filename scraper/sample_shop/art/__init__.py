"""How the shop draws its photos: a posed person, garments, fabrics and a background."""
