"""Turn the drive into data/frames.h5: every labelled frame as the network sees it, 33x100 RGB."""

from pilotnet_sdnn.drive import labels_sha256, open_drive, origin, radians, read_labels, resized_frames
from pilotnet_sdnn.errors import reported
from pilotnet_sdnn.frames import write_frames
from pilotnet_sdnn.paths import DRIVE, FRAMES
from pilotnet_sdnn.progress import progress


def main() -> None:
    with open_drive(DRIVE) as drive:
        labels = read_labels(drive)
        frames = progress(resized_frames(drive, labels), total=len(labels), desc="resize", unit="frame")
        write_frames(FRAMES, frames, radians(labels), origin=origin(drive), labels_sha256=labels_sha256(drive))
    print(f"{FRAMES}: {len(labels)} frames")


if __name__ == "__main__":
    with reported():
        main()
