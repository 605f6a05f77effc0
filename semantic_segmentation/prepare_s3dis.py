"""Prepare S3DIS: ``python prepare_s3dis.py Stanford3dDataset_v1.2_Aligned_Version data/stanford_indoor3d``.

A room's annotation files become one ``Area_<n>_<room>.npy`` (N, 7) float32: x y z r g b label, the minimum of x, y and
z at 0. Rooms that are there already are left alone, so an interrupted run goes on.
"""
import concurrent.futures.process
import os
import pathlib
import re
import sys

import numpy as np
from tqdm import tqdm

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from datasets.io.folders import files_in, subfolders  # noqa: E402 - the script's folder is on the path
from datasets.s3dis import CLASS_NAMES  # noqa: E402 - the script's folder is on the path, the project's is not
from utils.command import run_command  # noqa: E402
from utils.errors import DataError, UserError, one_line  # noqa: E402
from utils.files import check_writable, replacing  # noqa: E402
from utils.parser import ArgumentParser, positive  # noqa: E402

CLUTTER = CLASS_NAMES.index("clutter")  # what unknown objects count as, such as stairs


def find_rooms(source):
    """Return the ``Annotations`` folders of all rooms, sorted; DataError where there is none."""
    folders = [room / "Annotations" for area in subfolders(source) if area.name.startswith("Area_")
               for room in subfolders(area) if (room / "Annotations").is_dir()]
    if not folders:
        raise DataError(f"{source} holds no Area_<n>/<room>/Annotations: it should be the unpacked "
                        f"Stanford3dDataset_v1.2_Aligned_Version")
    return folders


def prepare_room(folder, target):
    """Write the room of the ``Annotations`` folder to the file ``target``; returns its number of points."""
    parts = []
    for path in files_in(folder, [".txt"]):
        name = path.stem.split("_")[0]
        label = CLASS_NAMES.index(name) if name in CLASS_NAMES else CLUTTER
        points = read_annotation(path)
        parts.append(np.column_stack([points, np.full(len(points), label)]))
    if not parts:
        raise DataError(f"{folder} holds no annotation files <class>_<k>.txt")
    room = np.concatenate(parts)
    room[:, :3] -= room[:, :3].min(0)
    with replacing(target) as file:
        np.save(file, room.astype(np.float32))
    return len(room)


def read_annotation(path):
    """Return the points (N, 6) float64 of a file of lines ``x y z r g b``.

    A stray character counts as a blank: Area_5/hallway_6/Annotations/ceiling_1.txt has one between two numbers.
    Raises DataError, naming the file and line, where that does not help, or where there are no points.
    """
    content = path.read_bytes()
    if not content.strip():
        raise DataError(f"{path} is empty: unpack the archive again")
    try:
        points = np.loadtxt(content.decode("ascii").splitlines(), ndmin=2)
    except (ValueError, UnicodeDecodeError):
        points = np.array(read_lines(path, re.sub(rb"[^0-9eE+.\s-]", b" ", content).splitlines()))
    if not len(points):
        raise DataError(f"{path} holds no points: unpack the archive again")
    if points.shape[1] != 6:
        raise DataError(f"{path} holds lines of {points.shape[1]} numbers, not of 6: x y z r g b")
    if not np.isfinite(points).all():
        raise DataError(f"{path} holds NaN or infinite numbers")
    return points


def read_lines(path, lines):
    """Return a list of six numbers for each line of ``lines`` that is not blank."""
    rows = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if words and len(row) != 6:
            raise DataError(f"{path}, line {number}: '{line.decode(errors='replace')[:60]}' is not x y z r g b")
        if words:
            rows.append(row)
    return rows


def prepare(source, output, workers):
    """Prepare all rooms of ``source`` in ``workers`` processes; returns the errors by room's folder."""
    output = pathlib.Path(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output} cannot be made: {error.strerror}") from error
    check_writable(output / "room.npy")
    targets = {folder: output / f"{folder.parts[-3]}_{folder.parts[-2]}.npy" for folder in find_rooms(source)}
    missing = {folder: target for folder, target in targets.items() if not target.exists()}
    errors = {}
    pool = concurrent.futures.ProcessPoolExecutor(workers)
    try:
        jobs = {pool.submit(prepare_room, folder, target): folder for folder, target in missing.items()}
        bar = tqdm(concurrent.futures.as_completed(jobs), "Rooms", len(targets), initial=len(targets) - len(missing),
                   unit="room", disable=None)
        for job in bar:
            try:
                job.result()
            except (DataError, OSError) as error:
                errors[jobs[job]] = one_line(error)
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError("a worker process was killed, probably for want of memory: run again with fewer "
                        "--workers") from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    areas = sorted({folder.parts[-3] for folder in targets})
    print(f"{len(targets) - len(errors)} of {len(targets)} rooms of {', '.join(areas)} in {output}")
    return errors


def main():
    parser = ArgumentParser(description="Turn the raw S3DIS into one .npy file a room.")
    parser.add_argument("source", metavar="RAW", help="the folder Stanford3dDataset_v1.2_Aligned_Version")
    parser.add_argument("output", metavar="DIR", nargs="?", default="data/stanford_indoor3d",
                        help="where the rooms go (default: %(default)s)")
    parser.add_argument("--workers", type=positive, default=os.cpu_count(), metavar="N",
                        help="rooms prepared at a time")
    args = parser.parse_args()
    errors = prepare(args.source, args.output, args.workers)
    for _, reason in sorted(errors.items()):
        print(f"error: {reason}", file=sys.stderr)
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    run_command(main)
