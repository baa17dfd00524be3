"""Whatever bytes a stranger sends: a drive, or one line that says why not, and never another exception."""

import contextlib
import io
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from drives import encoded
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pilotnet_sdnn.drive import sources
from pilotnet_sdnn.drive.archives import FolderArchive, read_member
from pilotnet_sdnn.drive.drive_zip import frame_member, open_drive, read_labels
from pilotnet_sdnn.drive.images import decode_frame
from pilotnet_sdnn.drive.labels import BadLabels, decode_text, format_label, parse_labels, segments
from pilotnet_sdnn.drive.layouts import read_layout
from pilotnet_sdnn.drive.reading import Reading
from pilotnet_sdnn.errors import UserError, printable

MEMORY = 200 * 2**20  # bytes that nothing a fuzzer finds may need
LONG = settings(max_examples=2_000, derandomize=False, deadline=None)


@contextlib.contextmanager
def refused_in_one_line():
    tracemalloc.start()
    try:
        yield
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        assert len(str(error)) < 2000
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MEMORY


def mutated(original: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with some replaced, cut off or put in."""
    at = st.integers(0, len(original))
    edit = st.tuples(at, st.integers(0, 8), st.binary(max_size=8))

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        data = original
        for start, removed, put_in in edits:
            data = data[:start] + put_in + data[start + removed :]
        return data

    return st.one_of(st.lists(edit, min_size=1, max_size=6).map(apply), at.map(lambda end: original[:end]))


def lines(*fields: str) -> st.SearchStrategy[bytes]:
    """Text of lines that are nearly right."""
    odd = (
        "nan",
        "-inf",
        "1e999",
        "1e-999",
        "",
        " ",
        '"',
        "#",
        "\ufeff",
        "\u2028",
        "٣",
        "0x1",
        "1_0",
        "../0.jpg",
        "C:\\0.jpg",
    )
    line = st.lists(st.sampled_from([*fields, *odd]) | st.text(max_size=5), max_size=6)
    separator = st.sampled_from([" ", ",", ";", "\t", ", "])
    joined = st.tuples(line, separator).map(lambda both: both[1].join(both[0]))
    text = st.tuples(st.lists(joined, max_size=8), st.sampled_from(["\n", "\r\n", "\r"]))
    return st.one_of(
        st.tuples(text, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])).map(
            lambda both: both[0][1].join(both[0][0]).encode(both[1], "replace")
        ),
        st.binary(max_size=200),
    )


@given(lines("0.jpg", "1.jpg", "17.5", "-3", "2018-07-01 17:09:44:912", "2018-07-01", "9999-12-31 23:59:59:999"))
def test_any_labels(data):
    with refused_in_one_line():
        bad = BadLabels("data.txt", "skip")
        labels = parse_labels(decode_text(data, "data.txt"), "data.txt", bad)
        segments(labels, 1, 1)
        text = "".join(map(format_label, labels))
        written = parse_labels(text, "data.txt", BadLabels("data.txt", "skip"), packed=True)
        assert [label.frame for label in written] == [label.frame for label in labels]


COLUMNS = {"frame": "image", "angle": "angle", "time": "time"}
NUMBERS = {"frame": 0, "angle": 1, "time": 2}
STEERING = {"frame": None, "angle": "angle", "time": "time"}


@given(
    lines("image", "angle", "time", "0.jpg", "/a/IMG/1.jpg", "1", "0.5", "-1", "1e18", "2018-07-01T17:09:44"),
    st.sampled_from(["labels.csv", "driving_log.csv"]),
    st.sampled_from(
        [Reading("skip", csv_columns=columns, csv_unit="degrees") for columns in (COLUMNS, NUMBERS, STEERING)]
        + [Reading("skip", csv_columns=COLUMNS), Reading(), Reading("skip")]
    ),
)
def test_any_table(data, name, reading):
    with tempfile.TemporaryDirectory() as folder:
        for frame in ("0.jpg", "IMG/1.jpg"):
            (Path(folder) / frame).parent.mkdir(exist_ok=True)
            (Path(folder) / frame).touch()
        (Path(folder) / name).write_bytes(data)
        with refused_in_one_line():
            drive = read_layout(FolderArchive(Path(folder)), reading)
            text = "".join(map(format_label, drive.labels))
            written = parse_labels(text, "data.txt", BadLabels("data.txt", "error"), packed=True)
            assert [label.problem for label in written] == [printable(label.problem) for label in drive.labels]


def small_zip(method: int, folder: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        archive.writestr(f"{folder}data.txt", "0.png 1\n1.png 2,2018-07-01 17:09:44:912\n")
        for name in ("0.png", "1.png"):
            archive.writestr(f"{folder}{name}", encoded(Image.new("RGB", (4, 3)), "PNG"))
    return data.getvalue()


@given(
    st.one_of(
        *(
            mutated(small_zip(method, folder))
            for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            for folder in ("driving_dataset/", "")
        ),
        st.binary(max_size=100),
    ),
    st.sampled_from(["skip", "error"]),
)
def test_any_zip(data, on_bad_frame):
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(None),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        source, packed = Path(folder) / "a.zip", Path(folder) / "out" / "packed.zip"
        source.write_bytes(data)
        with refused_in_one_line():
            sources.fetch(str(source), packed, 1, 1, Reading(on_bad_frame))
            with open_drive(packed) as drive:
                labels = read_labels(drive, BadLabels("data.txt", on_bad_frame))
                for label in labels:
                    decode_frame(read_member(drive, frame_member(label)), label.frame)
        assert packed.exists() or not packed.parent.exists() or not list(packed.parent.iterdir())


NOISE = Image.effect_noise((24, 16), 80).convert("RGB")
EXIF = Image.Exif()
EXIF[274] = 6


@given(
    st.one_of(
        mutated(encoded(NOISE, "PNG")),
        mutated(encoded(NOISE.convert("P"), "PNG")),
        mutated(encoded(NOISE.convert("LA"), "PNG")),
        mutated(encoded(NOISE, "JPEG", exif=EXIF)),
        mutated(encoded(NOISE.convert("CMYK"), "JPEG")),
        mutated(encoded(NOISE, "BMP")),
        mutated(encoded(NOISE, "WEBP")),
        st.binary(max_size=100),
    )
)
@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged EXIF data
def test_any_image(data):
    with refused_in_one_line():
        assert decode_frame(data, "0.jpg").mode == "RGB"


@pytest.mark.slow
@pytest.mark.parametrize("check", [test_any_labels, test_any_table, test_any_zip, test_any_image])
@pytest.mark.filterwarnings("ignore")
def test_for_longer(check):
    LONG(check)()
