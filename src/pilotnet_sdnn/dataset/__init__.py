"""A drive as the network sees it: resized frames in one file, cut into sequences, split, augmented and batched.

Training and measuring open it through `road.open_dataset` and use `batches` and `augmentation`; only the stages
resize and inspect use `resizing` and `store` themselves.
"""
