"""Benchmarks of saliency models (`vtsum benchmark`) on TVSum and sets like it: one table with baselines and errors.

data.py reads the field's h5 and the folds, own_data.py writes such an h5 of one's own videos; methods.py names who can
be compared, of which baselines.py, ridge.py, ridge_spread.py, vasnet.py, pgl_sum.py, dsnet.py and visual_path.py are
ours and others are the user's (`vtsum.protocols.Method`); selected.py trains networks and selects the epoch; run.py
runs one row after the other, records.py keeps them; figures.py makes means and paired differences of them, table.py and
plot.py show these.
"""
