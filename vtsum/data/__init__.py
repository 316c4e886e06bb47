"""Data sets: TVSum and SumMe, ActivityNet Captions, stored frames, and the procedural corpus."""
