"""Frames of a made drive per second of processor time: rendered, and encoded as JPEG, on one core."""

import io
import time

from PIL import Image

from pilotnet_sdnn.drive import synthetic

FRAMES = 1000

start = time.process_time()
for image, _ in synthetic.drive(FRAMES, seed=0):
    Image.fromarray(image).save(io.BytesIO(), "JPEG", quality=90)
print(f"{FRAMES / (time.process_time() - start):.0f} frames/s")
