"""Find near duplicates: perceptual hashes, neighbor search, alignment and clusters."""
