"""A drive as the network sees it: resized frames in one file, cut into sequences, split, augmented and batched.

Training and measuring open it through `dataset.open_dataset`; only the stages resize and inspect use `resizing`,
`store`, `alignment` and `inspection` themselves.
"""
