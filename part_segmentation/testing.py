"""Testing on the objects of ShapeNetPart, plain and by votes."""
import torch

from tools.engine.run import open_run, summarize
from tools.tasks.segmentation import PartSegmentation
from utils import distributed
from utils.plots.clouds import write_ply
from utils.plots.labels import labelled_picture, palette

DRAWN_PER_CATEGORY = 2  # objects of each category


def test(args):
    """Log the scores of one plain pass and of the mean over ``vote.times`` augmented views; returns both."""
    run = open_run(args)
    task = PartSegmentation(run)
    task.model.eval()
    summarize(run, task.model, task.datasets)
    results = {}
    with torch.inference_mode(), run.autocast():
        for name, times in (("Plain", 0), (f"Mean of {task.times} views", task.times)):
            results[name] = task.evaluate(-1, {}, times)
            shown = "  ".join(f"{key} {value:.2f}" for key, value in results[name].items())
            run.log.info("%s  %s", name, shown)
        if args.visual and distributed.is_main():
            draw(run, task)
    run.close()
    return results


def draw(run, task):
    """Write pictures and coloured ``.ply`` files of prediction and truth of the first objects of every category."""
    data, folder, seen = task.datasets["val"], run.folder / "parts", {}
    folder.mkdir(exist_ok=True)
    for index, number in enumerate(data.labels.tolist()):
        seen[number] = seen.get(number, 0) + 1
        if seen[number] > DRAWN_PER_CATEGORY:
            continue
        points, category, label = data[index]
        prediction = task.predict(points.unsqueeze(0), torch.tensor([category]))[0]
        name = f"{data.class_names[number]}_{data.ids[index].rsplit('/', 1)[-1]}"
        parts = sorted(set(label.tolist()) | set(prediction.tolist()))
        labels = {"truth": label.numpy(), "prediction": prediction.numpy()}
        for kind, values in labels.items():
            write_ply(folder / f"{name}_{kind}.ply", points.numpy(), palette(50)[values])
        relative = {kind: [parts.index(value) for value in values.tolist()] for kind, values in labels.items()}
        labelled_picture(folder / f"{name}.png", points.numpy(), relative, [f"part {part}" for part in parts], name,
                         above=False)
        run.log.info("%s", folder / f"{name}.png")
