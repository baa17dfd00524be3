"""What a network does on held-out road, counted: activity, steering, operations and their tables.

Two protocols: as a running camera, where each held-out stretch is one stream and every frame counts, and restarted, the
tutorial's, where every 16 frames start anew and their first one is not counted.
"""
