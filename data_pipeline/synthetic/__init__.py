"""What `data_pipeline.synthesize` draws: cells, glass, stain, and the faults planted among the files."""
