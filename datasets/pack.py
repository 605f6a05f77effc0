"""One file instead of a folder of clouds: ``python -m datasets.pack FOLDER``.

The file, ``packed.safetensors``, holds every cloud's coordinates as a float32 tensor (N, 3) under its file name; it is
mapped into memory, so that many workers and runs share it. ``ShapeNet`` prefers it to the files it was made from.
"""
import json
import os
import pathlib
import struct

import numpy as np
from tqdm import tqdm

from datasets.clouds import check_cloud
from datasets.io.arrays import load_npy
from datasets.io.folders import has_suffix, is_hidden
from utils.command import run_command
from utils.errors import DataError
from utils.files import check_writable, replacing
from utils.parser import ArgumentParser
from utils.text import parse_json

NAME = "packed.safetensors"
ROW = 12  # bytes of a point


class PackedClouds:
    """The clouds of a packed file, read by name."""

    def __init__(self, path):
        self.path, self._points = pathlib.Path(path), None
        try:
            with open(path, "rb") as file:
                length, = struct.unpack("<Q", file.read(8))
                if length > self.path.stat().st_size:
                    raise ValueError("its header is longer than the file")
                header = parse_json(file.read(length))
                self.start = 8 + length
                self.rows = {name: rows_of(entry) for name, entry in header.items() if name != "__metadata__"}
            complete = self.start + ROW * max((end for _, end in self.rows.values()), default=0)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise DataError(f"{path} is damaged or not a packed file: remove it, or pack its folder again") from error
        if self.path.stat().st_size != complete:
            raise DataError(f"{path} is cut off: remove it, or pack its folder again")

    def __contains__(self, name):
        return name in self.rows

    def __getstate__(self):
        return {**self.__dict__, "_points": None}  # a worker maps the file itself

    def read(self, name):
        """Return the cloud (N, 3) float32 of file ``name``."""
        begin, end = self.rows[name]
        if begin == end:
            return np.empty((0, 3), np.float32)
        if self._points is None:
            self._points = np.memmap(self.path, np.uint8, "r", offset=self.start)
        return self._points[begin * ROW:end * ROW].view(np.float32).reshape(-1, 3)


def rows_of(entry):
    """Return the first row and the end of a cloud of the header; ValueError where it is not one of float32 (N, 3)."""
    begin, end = entry["data_offsets"]
    if type(begin) is not int or type(end) is not int or not 0 <= begin <= end or begin % ROW or end % ROW:
        raise ValueError("it holds a cloud that is not float32 (N, 3)")
    return [begin // ROW, end // ROW]


def pack_folder(folder):
    """Pack the ``.npy`` clouds of ``folder`` into a file in it; returns its path.

    Raises DataError, naming the file, where one is not a usable cloud; a file that was there before is kept then.
    """
    folder = pathlib.Path(folder)
    try:
        names = sorted(entry.name for entry in os.scandir(folder)
                       if has_suffix(entry.name, [".npy"]) and not is_hidden(entry.name))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from error
    if not names:
        raise DataError(f"{folder} holds no .npy files")
    check_writable(folder / NAME)
    header, offset = {}, 0
    for name in tqdm(names, "sizes", unit="file", disable=None):
        shape = load_npy(folder / name).shape
        if len(shape) != 2:
            raise DataError(f"{folder / name} holds an array of shape {shape}, not points (N, 3)")
        header[name] = {"dtype": "F32", "shape": [shape[0], 3], "data_offsets": [offset, offset + ROW * shape[0]]}
        offset += ROW * shape[0]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the points are aligned
    path = folder / NAME
    try:
        with replacing(path, durable=True) as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name in tqdm(names, "packing", unit="file", disable=None):
                file.write(np.ascontiguousarray(check_cloud(load_npy(folder / name), folder / name, 1)[:, :3]))
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error
    return path


def main():
    parser = ArgumentParser(description="Pack a folder of .npy clouds into one file that ShapeNet reads.")
    parser.add_argument("folder", metavar="FOLDER", help="the folder that PC_PATH names")
    path = pack_folder(parser.parse_args().folder)
    print(f"{path}: {path.stat().st_size / 1e6:.0f} MB; the .npy files are not read any more and may be removed")


if __name__ == "__main__":
    run_command(main)
