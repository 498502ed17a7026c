"""HRNet: where the joints of a person in a photo are."""
