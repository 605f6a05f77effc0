"""Testing on whole rooms of S3DIS."""
import time
import warnings

import numpy as np
import torch

from semantic_segmentation.whole_scene import label_room
from tools.engine.metrics import confusion, segmentation_scores
from tools.engine.run import open_run, summarize
from tools.tasks.segmentation import RoomSegmentation, iou_table
from utils import distributed
from utils.files import replacing
from utils.plots.clouds import write_ply
from utils.plots.labels import labelled_picture, palette
from utils.tables import align

PICTURE_POINTS = 60_000  # points of a picture
CEILING = 0  # the class that would hide all others from above


def test(args):
    """Label every room of the test area; log the scores by room and overall, write predictions and pictures.

    ``predictions/<room>.npy`` holds the class of each point (N,) uint8, in the order of the room's file. With
    ``--visual`` coloured ``.ply`` files of prediction and truth and a picture from above are written beside it.
    """
    run = open_run(args)
    task = RoomSegmentation(run)
    data, model = task.datasets["val"], task.model.eval()
    summarize(run, model, task.datasets)
    names, results = data.class_names, []
    trained = task.given_notes.get("test_area", data.test_area)
    if trained != data.test_area:
        warnings.warn(f"{args.ckpts} was trained with Area {trained} held out, so it has seen Area {data.test_area}: "
                      f"give --test_area {trained}", stacklevel=2)
    folder = run.folder / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    for room in data.all_rooms[distributed.rank()::distributed.world_size()]:
        start = time.perf_counter()
        with run.autocast():
            prediction = label_room(model, room, len(names), data.npoints, task.times, run.config.total_bs,
                                    run.device, args.seed)
        counts = confusion(torch.from_numpy(prediction), torch.from_numpy(np.array(room.label)), len(names))
        scores, _ = segmentation_scores(counts)
        results.append((room.name, len(room), scores, counts))
        shown = "  ".join(f"{key} {value:.2f}" for key, value in scores.items())
        run.log.info("%s  %s  %.0f s", room.name, shown, time.perf_counter() - start)
        write(folder, room, prediction, args.visual, names)
    results = sorted(distributed.gather_list(results), key=lambda result: result[0])
    rows = [["Room", "points", "mIoU", "OA", "mAcc"]]
    rows += [[name, str(points), *(f"{scores[key]:.2f}" for key in rows[0][2:])] for name, points, scores, _ in results]
    total = sum(counts for *_, counts in results)
    scores, ious = segmentation_scores(total)
    run.log.info("%s\n\n%s", align(rows), iou_table(names, ious, total.sum(1)))
    run.log.info("All %d rooms, %d votes  %s", len(data.all_rooms), task.times,
                 "  ".join(f"{key} {value:.2f}" for key, value in scores.items()))
    run.close()
    return scores


def write(folder, room, prediction, visual, names):
    """Write a room's prediction and, with ``visual``, what shows it."""
    original = np.empty_like(prediction)
    original[room.order] = prediction
    with replacing(folder / f"{room.name}.npy") as file:
        np.save(file, original)
    if not visual:
        return
    colours = palette(len(names))
    labels = {"truth": np.array(room.label), "prediction": prediction}
    for name, label in labels.items():
        write_ply(folder / f"{room.name}_{name}.ply", np.array(room.xyz), colours[label])
    inside = np.flatnonzero(labels["truth"] != CEILING)
    chosen = np.random.default_rng(0).permutation(inside)[:PICTURE_POINTS]
    if len(chosen):
        labelled_picture(folder / f"{room.name}.png", np.array(room.xyz[chosen]),
                         {name: label[chosen] for name, label in labels.items()}, names,
                         f"{room.name}, from above, without the ceiling")
