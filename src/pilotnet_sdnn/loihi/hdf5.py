"""Checks of untrusted HDF5 files."""

import h5py

DEPTH = 4  # of nested groups; a hard link to a parent group would never end


def check_self_contained(group: h5py.Group, depth: int = DEPTH) -> None:
    """Check that all data below `group` lies in its own file, as large as it says.

    Raises:
        ValueError: a link or a dataset leads elsewhere, or claims more bytes than the file has.
    """
    size = group.file.id.get_filesize()
    for name in group:
        if depth == 0 or not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name!r} is a link")
        item = group[name]
        if isinstance(item, h5py.Group):
            check_self_contained(item, depth - 1)
        elif not isinstance(item, h5py.Dataset):
            raise ValueError(f"{name!r} is no data")
        elif item.external or item.is_virtual or item.chunks:
            raise ValueError(f"{name!r} is stored elsewhere or in chunks")
        elif item.nbytes > size:
            raise ValueError(f"{name!r} has {item.nbytes} bytes, the file has {size}")
