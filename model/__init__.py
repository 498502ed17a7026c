"""Splits to judgement: the classifier, its training and its figures."""
