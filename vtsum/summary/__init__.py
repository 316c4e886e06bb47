"""The main job: a video in, its summary out. `pipeline` puts the parts together; `vtsum.summarize` is its door."""
