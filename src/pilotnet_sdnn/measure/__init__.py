"""What is counted and computed of a trained network: steering errors, events, synaptic operations, energy.

Its functions return the numbers of metrics/ and the report in plots/operations.md; stages write them.
"""
