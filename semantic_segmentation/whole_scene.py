"""Labelling whole rooms: overlapping blocks, each point labelled by the votes it gets."""
import numpy as np
import torch
from tqdm import tqdm

from datasets.s3dis import BLOCK
from utils.distributed import is_main

STRIDE, PADDING = 0.5, 0.001  # metres


def blocks(room):
    """Return [(centre (2,), indices of its points), …] of blocks of 1 m every 0.5 m, which cover the ``room``."""
    size = np.array(room.xyz[:, :2]).max(0)
    rows, columns = (int(np.ceil(max(extent - BLOCK, 0) / STRIDE)) + 1 for extent in size)
    result = []
    for row in range(rows):
        for column in range(columns):
            high = np.minimum((row * STRIDE + BLOCK, column * STRIDE + BLOCK), np.maximum(size, BLOCK))
            low = high - BLOCK  # the last block ends with the room
            inside = room.column(low - PADDING, high + PADDING)
            if len(inside):
                result.append(((low + high) / 2, inside))
    return result


def samples(room, npoints, rng):
    """Return the centres (S, 2) and point indices (S, npoints) that together hold all points of every block.

    A block's points are dealt out in random order to as many samples as it needs; the last one is filled up with
    random points of the block.
    """
    centres, chosen = [], []
    for centre, inside in blocks(room):
        spare = -len(inside) % npoints
        filled = np.concatenate([inside, rng.choice(inside, spare, replace=spare > len(inside))])
        dealt = rng.permutation(filled).reshape(-1, npoints)
        centres.append(np.tile(centre, (len(dealt), 1)))
        chosen.append(dealt)
    return np.concatenate(centres), np.concatenate(chosen)


def label_room(model, room, num_classes, npoints, votes, batch_size, device, seed=0):
    """Return the class (N,) uint8 of each point of ``room``, in the order of its sorted arrays.

    ``votes`` passes are made over the room, with other samples each; a point is of the class that most of its
    predictions name, the lower one where two are named alike.
    """
    pool = np.zeros((len(room), num_classes), np.int32)
    for vote in range(votes):
        centres, chosen = samples(room, npoints, np.random.default_rng((seed, vote)))
        starts = range(0, len(chosen), batch_size)
        for start in tqdm(starts, f"{room.name}, vote {vote + 1}/{votes}", unit="batch", leave=False,
                          disable=None if is_main() else True):
            index = chosen[start:start + batch_size]
            points = np.array(room.xyz[index])  # B N 3
            points[..., :2] -= centres[start:start + batch_size, None]
            with torch.inference_mode():
                log_prob = model(torch.from_numpy(points).to(device))["log_prob"]
            np.add.at(pool, (index.ravel(), log_prob.argmax(-1).cpu().numpy().ravel()), 1)
    return pool.argmax(1).astype(np.uint8)
