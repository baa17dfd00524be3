"""Where a drive comes from and how it is read: camera frames with steering labels, or a synthetic road.

`labels` parses a label. Stages fetch a drive through `sources` and read it through `drive_zip`, `images` and `labels`;
the other modules serve these.
"""
