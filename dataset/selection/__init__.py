"""Choose the images of a build: labels, quality gates, groups, splits and crops."""
