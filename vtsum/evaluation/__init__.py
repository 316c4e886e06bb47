"""Evaluation: the field's protocols, and the baselines that every result is shown beside.

rank.py: rank correlation (Otani et al. 2019). fscore.py: keyshot F-score (Zhang et al. 2016). features.py: what the
linear baseline looks at. baselines.py: random, human and ridge regression. tvsum_table.py: all of them on TVSum.
"""
