"""Build leak-free image classification datasets from the catalogue.

`build.py` turns the images of a catalogue into train, validation and test splits on disk. The
packages below hold its steps: the catalogue and the image store, duplicate detection, pose
estimation and crops, the selection of images and their splits, and the export with its audit.
"""
