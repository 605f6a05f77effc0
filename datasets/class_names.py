"""Names of classes for checkpoints that do not carry them, as those released with the paper."""
from datasets.scanobjectnn import CLASS_NAMES as SCANOBJECTNN

MODELNET10 = ("bathtub", "bed", "chair", "desk", "dresser", "monitor", "night_stand", "sofa", "table", "toilet")
MODELNET40 = (
    "airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone", "cup", "curtain",
    "desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard", "lamp", "laptop", "mantel", "monitor",
    "night_stand", "person", "piano", "plant", "radio", "range_hood", "sink", "sofa", "stairs", "stool", "table",
    "tent", "toilet", "tv_stand", "vase", "wardrobe", "xbox")


def known_names(config, classes):
    """Return the names of the ``classes`` classes of the config's data set, or ``class 0`` … where it is not known."""
    name = config.get("dataset", {}).get("train", {}).get("_base_", {}).get("NAME", "")
    tables = {"ModelNet": (MODELNET10, MODELNET40), "ModelNetHDF5": (MODELNET40,), "ModelNet40_SVM": (MODELNET40,),
              "ScanObjectNN": (SCANOBJECTNN,), "ScanObjectNN_hardest": (SCANOBJECTNN,)}
    for table in tables.get(name, ()):
        if len(table) == classes:
            return list(table)
    return [f"class {index}" for index in range(classes)]
