"""What a network does, in numbers: `activity` counts events, `operations` compares them with the ANN baseline.

Stages call these modules and add no counting of their own. Two protocols: a running camera, where each held-out stretch
is one stream and every frame counts, and the tutorial's, which restarts every 16 frames and does not count the first.
"""
