"""Steps between a model's numbers and a summary worth watching; each is usable alone.

event_segmentation    where one event ends and the next begins
summary_refinement    which shots make the summary, and where they are cut
speech                what is said, cleaned and summed up
frame_sampling        which frames an encoder must see
"""
