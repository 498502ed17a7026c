"""Train, evaluate and use the Inception-v3 classifier.

`training/train.py` trains on the splits of a build and writes a run directory. The other packages
evaluate a run, report on it, check product tags with it, search similar items and export it.
"""
