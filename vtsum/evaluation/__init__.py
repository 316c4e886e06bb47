"""Evaluation: the field's protocols, and the baselines that every result is shown beside.

TVSum and SumMe: rank.py has rank correlation (Otani et al. 2019), fscore.py keyshot F-score (Zhang et al. 2016),
features.py what the linear baseline looks at, baselines.py random, human and ridge regression, tvsum_table.py all of
them on TVSum.

VideoXum: videoxum_frames.py has F1 and rank correlation, captions.py BLEU, ROUGE-L and CIDEr, java.py the PTB tokenizer
and METEOR, clip_score.py VT-CLIPScore; videoxum_scores.py makes a data set's figures of per-video values;
videoxum_run.py evaluates a model (videoxum_settings.py, videoxum_job.py, videoxum_figures.py, videoxum_file.py and, for
several processes, ranks.py); videoxum_table.py and videoxum_plot.py show evaluations beside one another.
"""
