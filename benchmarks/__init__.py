"""Side-by-side measurements of chatpool: ``python -m benchmarks --list``.

Every benchmark runs its contenders in turn, round after round, in processes of their own, and reports ratios
within a round: what else the machine does then weighs on all of them alike.
"""
