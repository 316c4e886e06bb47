"""Steps between a model's numbers and a summary worth watching: event segmentation and summary refinement."""
