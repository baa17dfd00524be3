"""The drives that `source` names, one zip each in a folder; what was packed before is not packed again."""

from pathlib import Path

from pilotnet_sdnn.drive.archives import quoted
from pilotnet_sdnn.drive.known_sources import Known, look_at, read_known, write_known
from pilotnet_sdnn.drive.reading import Reading
from pilotnet_sdnn.drive.sources import behind, fetch, is_made_or_on_the_web
from pilotnet_sdnn.drive_files import DriveFolder, inputs_of, key_of
from pilotnet_sdnn.errors import UserError, counted, printable, without_password

SYNTHETIC = ("synthetic_frames", "seed")  # parameters of no other drive
UNKNOWN = 16 * "0"


def fetch_all(
    sources: list[str], folder: DriveFolder, frames: int, seed: int, reading: Reading, label_sign: int | list[int] = 1
) -> list[Path]:
    """Write each drive as a zip of its own, in the order of the list.

    The name of a zip holds two keys: of the source's name, and of its content. So a local drive that has changed is
    packed anew, one that has only moved is not, and one that is not on this machine is as a colleague packed it.

    Args:
        sources: as in params.yaml.
        folder: where to write.
        frames: length of the synthetic drive.
        seed: seed of the synthetic drive.
        reading: how to read zips and folders.
        label_sign: of all drives, or of each.

    Returns: the zips that were packed now, and not taken from the cache.

    Raises:
        UserError: a source is named twice, cannot be reached or is not a drive.
    """
    if twice := [name for name in sources if sources.count(name) > 1]:
        raise UserError(f"params.yaml: source: {quoted(without_password(twice[0]))} appears twice")
    signs = label_sign if isinstance(label_sign, list) else [label_sign] * len(sources)
    if len(signs) != len(sources):
        raise UserError(
            f"params.yaml: label_sign: {counted(len(signs), 'sign')} for {counted(len(sources), 'drive')}; give one "
            "for each, or a single one for all"
        )
    inputs, packed = inputs_of("download"), []
    known, before = {}, read_known()
    for position, (source, sign) in enumerate(zip(sources, signs, strict=True), 1):
        reading, inputs = reading._replace(label_sign=sign), {**inputs, "label_sign": sign}
        if paths := behind(source, reading):
            known[source] = look_at(source, paths)
        elif source in before:
            known[source] = before[source]
        path = folder.path(position, name := _name(source, known.get(source), inputs))
        if folder.restore(_packed_before(folder, name), path):
            here = "" if paths or source not in known else ", as it is not on this machine"
            print(f"{printable(without_password(source))}: packed before, taken from DVC's cache{here}")
        else:
            fetch(source, path, frames, seed, reading)
            folder.keep()
            packed.append(path)
    write_known(known)
    return packed


def _name(source: str, known: Known | None, inputs: dict) -> str:
    """The name of a source's zip, with two keys: of its name, and of its content or, if that is unknown, `UNKNOWN`."""
    without = ("source", "max_gigabytes", *(() if source == "synthetic" else SYNTHETIC))
    inputs = {name: value for name, value in inputs.items() if name not in without}
    if is_made_or_on_the_web(source):
        return f"{key_of(source, inputs)}-{key_of(source, inputs, 'content')}.zip"
    by_content = key_of(Path(source).name, known["content"], inputs) if known else UNKNOWN
    return f"{key_of(source, inputs)}-{by_content}.zip"


def _packed_before(folder: DriveFolder, name: str) -> str | None:
    """The zip in the cache with the same content or, if the content is unknown, the newest of the same name."""
    by_name, by_content = name.removesuffix(".zip").split("-")
    return folder.newest(rf"{by_name}-.*" if by_content == UNKNOWN else rf".*-{by_content}\.zip")
