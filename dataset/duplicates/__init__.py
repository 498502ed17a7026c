"""Find near duplicates: perceptual hashes, neighbor search, alignment and clusters."""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "hashing": ["Fingerprint", "fingerprint"],
        "hamming": ["HashIndex", "pairs_within"],
        "alignment": ["similarity"],
        "matching": ["CandidatePairs", "candidate_pairs"],
        "pipeline": ["DedupResult", "dedup"],
    },
)
