"""Write a build to disk: images, manifest, dataset card, report and leakage audit."""
