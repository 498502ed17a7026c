"""Write the files of a run: report page, metrics, CSV files, charts and model card."""
