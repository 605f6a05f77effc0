"""Files from outside run no code, lead to no other files, and ask for no more memory than there is."""
import copyreg
import json
import logging
import os
import pathlib
import pickle
import re
import struct
import subprocess
import sys
import time
import zipfile

import h5py
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from segmentation_data import write_parts, write_rooms

import main
import main_autoencoder
from datasets import ModelNet, ModelNetFewShot, ShapeNet, ShapeNetPart, verify
from datasets.few_shot import fold_path
from datasets.io.arrays import load_npy
from datasets.io.h5_files import read_h5
from datasets.io.lists import listed_path
from datasets.io.point_files import read_points
from datasets.io.safe_pickle import load_pickle, whole_number
from datasets.pack import PackedClouds, pack_folder
from datasets.s3dis_room import Room
from extensions import compile as compile_kernels
from models.foundation.language import build_language
from models.foundation.weights import create_pretrained
from models.pretrained import notes_in
from tools import convert_checkpoint, extract_features, few_shot, predict
from utils import checkpoint
from utils.config import load_config
from utils.errors import CheckpointError, ConfigError, DataError, UserError

MARKER = "ran"  # the file that a payload makes in the working directory
COMMAND = f"touch {MARKER}"
SYSTEM = b"cos\nsystem\n"


class Bomb:
    def __reduce__(self):
        return os.system, (COMMAND,)


def text(words):
    return b"V" + words.encode() + b"\n"


LIVE = {  # these run the command where an ordinary reader loads them
    "REDUCE": SYSTEM + b"(" + text(COMMAND) + b"tR.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + text(COMMAND) + b"\x85R.",
    "INST": b"(" + text(COMMAND) + b"ios\nsystem\n.",
    "OBJ": b"(" + SYSTEM + text(COMMAND) + b"o.",
    "BUILD": b"cfunctools\npartial\n(" + SYSTEM + b"tR(" + SYSTEM + b"(" + text(COMMAND) + b"t}Ntb)R.",
    "eval": b"cbuiltins\neval\n(" + text(f"__import__('os').system('{COMMAND}')") + b"tR.",
    "object array": pickle.dumps(np.array([Bomb()], object)),
    "in containers": pickle.dumps([[{"points": (Bomb(),)}]], 2),
    "numpy's own exec": b"cnumpy.testing._private.utils\nrunstring\n("
                        + text(f"import os; os.system('{COMMAND}')") + b"}tR.",
}
FIELDS = (b"cnumpy\ndtype\n(VV8\nI0\nI1\ntR(I3\nV|\nN(Va\nt}Va\n(cnumpy\ndtype\n(VO\nI0\nI1\ntRI0\ntsI8\nI1\nI0\ntb")
OTHERS = {
    "NEWOBJ": b"\x80\x02csubprocess\nPopen\n)\x81.",
    "EXT1": b"\x80\x02\x82\x01.",
    "PERSID": b"Pcos.system\n.",
    "BINPERSID": text("os.system") + b"Q.",
    "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
    "bytes as an object": b"cnumpy.core.multiarray\nscalar\n(" + FIELDS
                          + b"c_codecs\nencode\n(VABCDEFGH\nVlatin1\ntRtR.",
    "state of a function": b"cnumpy.core.multiarray\nscalar\n(N}V__name__\nVx\nstb.",
}
PAYLOADS = {**LIVE, **OTHERS}


@pytest.fixture(autouse=True)
def no_code_runs(in_tmp_path):
    """Fail the test whose file was able to run its command."""
    yield
    assert not pathlib.Path(MARKER).exists()


def same_line(error, *parts):
    """Assert that an error is one line, and says ``parts``."""
    shown = str(error.value)
    assert "\n" not in shown
    assert "Traceback" not in shown
    for part in parts:
        assert part in shown, shown


@pytest.mark.parametrize("name", LIVE)
def test_the_payloads_are_live(name, tmp_path):
    (tmp_path / "live").mkdir()
    code = "import pickle, sys; pickle.load(sys.stdin.buffer)"
    subprocess.run([sys.executable, "-c", code], input=LIVE[name], cwd=tmp_path / "live", check=False)
    assert (tmp_path / "live" / MARKER).exists()


# ---- pickles of data

CLOUDS = [np.random.default_rng(0).random((16, 3), np.float32) for _ in range(2)]


def modelnet(content):
    path = pathlib.Path("modelnet10_test_16pts_fps.dat")
    pathlib.Path("modelnet10_shape_names.txt").write_text("bed\nsofa")
    pathlib.Path("modelnet10_test.txt").write_text("bed_0001\nsofa_0001")
    path.write_bytes(pickle.dumps([CLOUDS, [np.array([0]), 1]]) if content is None else content)
    return path.name, lambda: ModelNet(DATA_PATH=".", N_POINTS=16, NUM_CATEGORY=10, subset="test")


def fold(content):
    path = fold_path(".", 5, 1, 0)
    path.parent.mkdir(exist_ok=True)
    samples = [(CLOUDS[0], 0, np.int64(7))]
    path.write_bytes(pickle.dumps({"test": samples}) if content is None else content)
    return path.name, lambda: ModelNetFewShot(DATA_PATH=".", N_POINTS=16, subset="test", way=5, shot=1, fold=0)


@pytest.mark.parametrize("write", [modelnet, fold])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_pickles_of_data(write, payload):
    name, read = write(PAYLOADS[payload])
    with pytest.raises(DataError) as error:
        read()
    same_line(error, name, "is damaged or not a pickle of arrays")
    assert len(write(None)[1]()) > 0


def test_an_extension_code_that_the_process_knows(tmp_path):
    copyreg.add_extension("os", "system", 1)
    try:
        (tmp_path / "x.dat").write_bytes(b"\x80\x02\x82\x01" + text(COMMAND) + b"\x85R.")
        with pytest.raises(DataError, match=r"asks for os.system"):
            load_pickle(tmp_path / "x.dat")
    finally:
        copyreg.remove_extension("os", "system", 1)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_numbers_pass(tmp_path, protocol):
    arrays = [CLOUDS[0], CLOUDS[0].T, np.asfortranarray(CLOUDS[0]), CLOUDS[0].astype(">f8"), np.array([1], np.int32),
              np.array(True), np.float32(2.5), np.zeros((3, 0, 2)) if protocol > 2 else np.uint8(3)]
    (tmp_path / "x.dat").write_bytes(pickle.dumps(arrays, protocol))
    for ours, theirs in zip(load_pickle(tmp_path / "x.dat"), pickle.loads((tmp_path / "x.dat").read_bytes()),
                            strict=True):
        assert np.array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
        assert not isinstance(ours, np.ndarray) or ours.flags.writeable


@pytest.mark.parametrize("shape", [b"(I-1\nI-3\nt", b"(I4\nI3\nt", b"(L99999999999L\nI3\nt", b"(Vx\nt"])
def test_states_that_are_no_array(tmp_path, shape):
    state = b"(I1\n" + shape + b"cnumpy\ndtype\n(Vf4\nI0\nI1\ntRI0\nVABCDEFGHIJKL\ntb."
    (tmp_path / "x.dat").write_bytes(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR" + state)
    with pytest.raises(DataError, match="is damaged or not a pickle of arrays"):
        load_pickle(tmp_path / "x.dat")


def test_lists_that_stand_for_endless_arrays():
    bomb = [0.0, 0.0, 0.0]
    for _ in range(60):
        bomb = [bomb, bomb]
    with pytest.raises(DataError, match="cloud 0 holds a list, not points"):
        fold(pickle.dumps({"test": [(bomb, 0, 0)]}))[1]()
    for wrong in (bomb, 1 << 40_000, "1", np.zeros(2)):
        with pytest.raises(DataError, match="has a label or class that is not a whole number"):
            fold(pickle.dumps({"test": [(CLOUDS[0], wrong, 0)]}))[1]()
    assert [whole_number(value) for value in (3, np.int64(3), np.array([3]))] == [3, 3, 3]


def test_verify(run):
    modelnet(LIVE["REDUCE"])
    config = {"NAME": "ModelNet", "DATA_PATH": ".", "N_POINTS": 16, "NUM_CATEGORY": 10}
    pathlib.Path("data.yaml").write_text(yaml.safe_dump(config))
    out, _ = run(verify, "data.yaml", status=1)
    assert "modelnet10_test_16pts_fps.dat is damaged or not a pickle of arrays: it asks for os.system" in out


# ---- checkpoints

def in_zip(path, content):
    with zipfile.ZipFile(path, "w") as file:
        for name, data in (("data.pkl", content), ("version", b"3\n"), ("byteorder", b"little")):
            file.writestr(f"archive/{name}", data)


def in_old_format(path, content):
    start = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
    path.write_bytes(b"".join(pickle.dumps(entry, 2) for entry in start) + content)


def alone(path, content):
    path.write_bytes(content)


# what is said of a file that asks for code, or that is no file of torch.save at all
REFUSALS = ("is refused: it calls", "is refused: Trying to load unsupported GLOBAL", "is damaged or not a checkpoint:",
            "is not a checkpoint: it is a pickle that torch.save has not written", "holds an object of the class",
            "was written with a pickle protocol that has no safe reader", "is not a checkpoint that can be read:")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [in_zip, in_old_format, alone])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_checkpoints(tmp_path, write, payload):
    write(tmp_path / "evil.pth", PAYLOADS[payload])
    with pytest.raises(CheckpointError) as error:
        checkpoint.read(tmp_path / "evil.pth")
    same_line(error)
    assert re.search(f"evil.pth ({'|'.join(REFUSALS)})", str(error.value))
    assert "weights_only" not in str(error.value)  # torch's advice would run it


@pytest.mark.parametrize("new", [True, False])
def test_checkpoints_with_numbers_pass(tmp_path, new):
    metrics = {"acc": np.float64(2.5), "loss": np.float32(1), "epoch": np.int64(3)}
    torch.save({"base_model": {"a": torch.ones(2)}, "metrics": metrics}, tmp_path / "c.pth",
               _use_new_zipfile_serialization=new)
    assert checkpoint.read(tmp_path / "c.pth")["metrics"] == metrics
    assert checkpoint.read_weights(tmp_path / "c.pth")["a"].tolist() == [1, 1]


def test_a_packed_checkpoint(tmp_path):
    torch.save({"base_model": {"a": torch.zeros(1_000_000)}}, tmp_path / "c.pth")
    with zipfile.ZipFile(tmp_path / "c.pth") as file, zipfile.ZipFile(tmp_path / "p.pth", "w", 8) as packed:
        for entry in file.infolist():
            packed.writestr(entry.filename, file.read(entry))
    with pytest.raises(CheckpointError, match=r"p.pth is refused: it is packed and would take 0.004 GB"):
        checkpoint.read(tmp_path / "p.pth")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [lambda: torch.eye(2).to_sparse(), lambda: torch.eye(2, device="meta"),
                                  lambda: torch.eye(2) * 1j,
                                  lambda: torch.quantize_per_tensor(torch.eye(2), 0.1, 0, torch.qint8)])
def test_weights_of_a_strange_form(tmp_path, make):
    torch.save({"base_model": {"a": make()}}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=r"c.pth holds 'a' in a form that no weight here has"):
        checkpoint.read_weights(tmp_path / "c.pth")


def test_names_and_notes_of_a_strange_kind(tmp_path):
    torch.save({1: torch.ones(1)}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=r"c.pth holds no model weights"):
        checkpoint.read_weights(tmp_path / "c.pth")
    save_file({"a": torch.ones(1)}, tmp_path / "c.safetensors", {"notes": "[" * 100_000})
    with pytest.raises(CheckpointError, match=r"c.safetensors is damaged"):
        checkpoint.read(tmp_path / "c.safetensors")
    assert notes_in({"notes": {"npoints": "many", "model": [1], "up": "z"}}) == {"up": "z"}


# ---- commands that read checkpoints

CONFIG = {"optimizer": {"type": "AdamW", "kwargs": {"lr": 0.001}}, "total_bs": 10, "max_epoch": 0,
          "scheduler": {"type": "CosLR", "kwargs": {"epochs": 1, "initial_epochs": 0}}, "npoints": 64,
          "dataset": {split: {"_base_": {"NAME": "Shapes"}, "others": {"subset": subset, "npoints": 64, "size": 20}}
                      for split, subset in (("train", "train"), ("val", "test"))},
          "model": {"NAME": "PointTransformer", "embed_dim": 24, "encoder_dims": 24, "depth": 1, "num_heads": 2,
                    "cls_dim": 20, "group_size": 8, "num_group": 8}}
AUTOENCODER = {**{key: value for key, value in CONFIG.items() if key != "npoints"}, "model": {
    "NAME": "ACTPromptedDiscreteVAEwithVIT", "visual_embed_type": "vit_tiny_patch16_224", "visual_embed_dim": 24,
    "visual_embed_pretrained": False, "visual_embed_kwargs": {"embed_dim": 24, "depth": 1, "num_heads": 2},
    "num_prompt_token": 2, "num_group": 8, "group_size": 8, "num_tokens": 16, "encoder_dims": 24, "tokens_dims": 24,
    "decoder_dims": 24}}


@pytest.fixture
def evil(tmp_path):
    """A checkpoint whose optimizer is a payload."""
    torch.save({"base_model": {"a": torch.ones(1)}, "optimizer": {"state": Bomb()}, "epoch": 0}, tmp_path / "evil.pth")
    return tmp_path / "evil.pth"


@pytest.fixture
def train(run, tmp_path):
    """Return a way to run a training command on a tiny config."""
    def train(module, *flags, status=0):
        config = tmp_path / "cfgs" / f"{module.__name__}.yaml"
        config.parent.mkdir(exist_ok=True)
        config.write_text(yaml.safe_dump(AUTOENCODER if module is main_autoencoder else CONFIG))
        try:
            return run(module, "--config", config, "--num_workers", 0, "--device", "cpu", *flags, status=status)
        finally:
            for handler in list(logging.getLogger("act").handlers):
                handler.close()
                logging.getLogger("act").removeHandler(handler)

    return train


def refused(output, name="evil.pth"):
    """Assert that a command ended in the one line that says that the checkpoint is none."""
    lines = [line for line in output.err.splitlines() if "error" in line.lower() or "Traceback" in line]
    assert len(lines) == 1, output.err
    assert name in lines[0]
    assert "is refused: Trying to load unsupported GLOBAL posix.system" in lines[0]


@pytest.mark.parametrize("flags", [("--finetune_model", "--ckpts"), ("--test", "--ckpts")])
def test_classification(train, evil, flags):
    refused(train(main, *flags, evil, status=2))


@pytest.mark.parametrize("flags", [("--start_ckpts",), ("--test", "--ckpts")])
def test_autoencoding(train, evil, flags):
    refused(train(main_autoencoder, *flags, evil, status=2))


def test_resuming(train, evil, tmp_path):
    train(main, "--scratch_model")
    last, = (tmp_path / "work_dirs").rglob("ckpt-last.pth")
    train(main, "--scratch_model", "--resume", "--set", "max_epoch=0")  # what was written is read
    last.write_bytes(evil.read_bytes())
    refused(train(main, "--scratch_model", "--resume", status=2), "ckpt-last.pth")


@pytest.mark.parametrize("module", [predict, extract_features])
def test_tools(run, evil, tmp_path, module):
    np.save(tmp_path / "x.npy", CLOUDS[0])
    output = ("--output", "y.npz") if module is extract_features else ()
    refused(run(module, "--ckpts", evil, *output, "x.npy", status=2))


def test_converting(run, evil, tmp_path):
    refused(run(convert_checkpoint, evil, tmp_path / "out.pth", status=2))
    assert not (tmp_path / "out.pth").exists()
    torch.save({"base_model": {"a": torch.ones(1)}, "optimizer": {"state": {}}}, evil)
    run(convert_checkpoint, evil, tmp_path / "out.pth")


# ---- foundation models

def test_a_language_model_with_code_of_its_own(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.C"}}))
    (tmp_path / "evil.py").write_text(f"import os\nos.system('{COMMAND}')\nfrom transformers import BertConfig as C\n")
    for pretrained, kwargs in ((False, {}), (False, {"trust_remote_code": True}), (True, {})):
        with pytest.raises(UserError) as error:
            build_language(str(tmp_path), pretrained, kwargs)
        same_line(error, str(tmp_path))


@pytest.mark.parametrize("key", ["checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"])
def test_files_that_timm_would_read(evil, key):
    kwargs = {"embed_dim": 24, "depth": 1, "num_heads": 2, key: str(evil)}
    with pytest.raises(ConfigError) as error:
        create_pretrained("vit_tiny_patch16_224", False, kwargs, ("blocks.",))
    same_line(error, f"model.visual_embed_kwargs names {key}: give the weights' file as")


# ---- names in lists

OUTSIDE = ["../x-1", "a/../../x-1", "/etc/x-1", "..\\x-1", "C:\\x-1", "./x-1", "a//x-1", "x-1\0", "..", "a/..", ""]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out(name):
    with pytest.raises(DataError) as error:
        listed_path("data", name, "list.txt")
    same_line(error, "list.txt: ", "is not a name inside data: correct that entry")


def test_names_and_links_inside_pass(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("a", "a..b", "a/b c", "link/x", "..."):
        assert listed_path(tmp_path / "data", name, "list.txt") == tmp_path / "data" / name


def shapenet(entry):
    np.save("02691156-1.npy", CLOUDS[0])
    for subset in ("train", "test"):
        pathlib.Path(f"{subset}.txt").write_text(f"02691156-1.npy\n{entry or ''}\n")
    return ShapeNet(DATA_PATH=".", PC_PATH=".", subset="test", npoints=8)


def packed_shapenet(entry):
    np.save("02691156-1.npy", CLOUDS[0])
    pack_folder(".")
    return shapenet(entry)


def modelnet_texts(entry):
    pathlib.Path("bed").mkdir(exist_ok=True)
    np.savetxt("bed/bed_0001.txt", CLOUDS[0], delimiter=",")
    np.savetxt("x-1.txt", CLOUDS[0], delimiter=",")
    pathlib.Path("modelnet10_shape_names.txt").write_text(f"bed\n{(entry or 'bed').rsplit('_', 1)[0]}")
    pathlib.Path("modelnet10_test.txt").write_text(f"bed_0001\n{entry or ''}")
    return ModelNet(DATA_PATH=".", N_POINTS=16, NUM_CATEGORY=10, subset="test")


def parts(entry):
    if not pathlib.Path("parts").exists():
        write_parts(pathlib.Path("parts"), objects=1)
    path = pathlib.Path("parts/train_test_split/shuffled_test_file_list.json")
    listed = json.loads(path.read_text())[:1]
    path.write_text(json.dumps([*listed, entry] if entry else listed))
    return ShapeNetPart(ROOT="parts", subset="test")


def synsets(entry):
    write_parts(pathlib.Path("parts"), objects=1)
    with open("parts/synsetoffset2category.txt", "a") as file:
        file.write(f"\nAirplane {entry}")
    return ShapeNetPart(ROOT="parts", subset="test")


@pytest.mark.parametrize("lead", ["../x-1.npy", "/etc/x-1.npy", "..\\x-1.npy"])
@pytest.mark.parametrize(("build", "listing"), [(shapenet, "test.txt"), (packed_shapenet, "test.txt"),
                                                (modelnet_texts, "modelnet10_test.txt"),
                                                (parts, "shuffled_test_file_list.json"),
                                                (synsets, "synsetoffset2category.txt")])
def test_lists_that_lead_out(build, listing, lead):
    with pytest.raises(DataError) as error:
        build(lead)
    same_line(error, f"{listing}: ", "is not a name inside", "correct that entry")


@pytest.mark.parametrize("build", [shapenet, packed_shapenet, modelnet_texts, parts])
def test_honest_lists_pass(build):
    assert len(build(None)) > 0


def test_names_that_no_file_can_have():
    with pytest.raises(DataError, match="does not exist"):
        parts(f"shape_data/02000000/{'x' * 5000}")


# ---- files that name others, or ask for terabytes

def h5(change):
    with h5py.File("x.h5", "w") as file:
        file["label"] = np.zeros(4, int)
        change(file)
    return read_h5("x.h5", "advice")


def test_hdf5():
    pathlib.Path("secret").write_bytes(bytes(120))
    for change, message in (
            (lambda file: file.create_dataset("data", (4, 10, 3), "u1", external=[("secret", 0, 120)]), "no array of"),
            (lambda file: file.__setitem__("data", h5py.ExternalLink("other.h5", "data")), "'data' is a link"),
            (lambda file: file.__setitem__("data", h5py.SoftLink("label")), "'data' is a link"),
            (lambda file: file.create_group("data"), "no array of"),
            (lambda file: file.create_dataset("data", (10**7, 10**4, 3), "f4", chunks=(1, 100, 3)), "1.2e.03 GB")):
        with pytest.raises(DataError, match=f"x.h5 is damaged or not an HDF5 file .*{message}"):
            h5(change)
    assert h5(lambda file: file.__setitem__("data", np.zeros((4, 10, 3))))[0].shape == (4, 10, 3)


@pytest.mark.parametrize("shape", ["(1000000000000, 3)", "(1000000000, 3)", "(8589934592, 8589934592)", "(-1, 3)"])
def test_npy_headers(shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    pathlib.Path("x.npy").write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(24))
    with pytest.raises(DataError, match=r"x.npy is damaged or not a .npy file of numbers"):
        load_npy("x.npy")


def test_an_archive_called_npy():
    with open("x.npy", "wb") as file:
        np.savez(file, a=CLOUDS[0])
    with pytest.raises(DataError, match=r"x.npy is damaged or not a .npy file of numbers: it is an archive"):
        load_npy("x.npy")


def test_an_archive_that_unpacks_to_too_much(monkeypatch):
    np.savez_compressed("x.npz", points=np.zeros((1000, 3)))
    assert read_points("x.npz", 9).shape == (9, 3)
    monkeypatch.setattr("datasets.io.arrays.UNPACKED", 10_000)
    with pytest.raises(DataError, match=r"x.npz is damaged .*\('points' would take 2.41e-05 GB"):
        read_points("x.npz")


@pytest.mark.parametrize("offsets", [[0, 24.0], [-48, 24], [False, 24], [0, 23], [24, 0], [0, 10**15], [0], None])
def test_packed_headers(offsets):
    header = json.dumps({"a": {"data_offsets": offsets}}).encode()
    pathlib.Path("x.bin").write_bytes(struct.pack("<Q", len(header)) + header + bytes(24))
    with pytest.raises(DataError, match=r"x.bin is (damaged or not a packed file|cut off)"):
        PackedClouds("x.bin")


def test_packed_files_of_nothing_and_of_depth():
    pathlib.Path("x.bin").write_bytes(struct.pack("<Q", 32) + b'{"a": {"data_offsets": [0, 0] }}')
    assert PackedClouds("x.bin").read("a").shape == (0, 3)
    for length, content in ((100_000, b"[" * 100_000), (1 << 60, b"{}")):
        pathlib.Path("x.bin").write_bytes(struct.pack("<Q", length) + content)
        with pytest.raises(DataError, match=r"x.bin is damaged or not a packed file"):
            PackedClouds("x.bin")


def test_ply_headers_and_pictures(capfd):
    header = "ply\nformat {}\ncomment TextureFile ../secret.png\nelement vertex {}\n" + "".join(
        f"property float {axis}\n" for axis in "xyz") + "element face 1\nproperty list uchar int vertex_indices\n"
    pathlib.Path("x.ply").write_bytes((header.format("binary_little_endian 1.0", 10**12) + "end_header\n").encode())
    with pytest.raises(DataError, match=r"x.ply is damaged or not a .ply file"):
        read_points("x.ply")
    pathlib.Path("x.ply").write_text(header.format("ascii 1.0", 3) + "end_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")
    assert len(read_points("x.ply", 9)) == 9
    assert capfd.readouterr().err == ""


def test_meshes_read_no_other_files():
    opened = []
    pathlib.Path("secret.mtl").write_text("newmtl a\n")
    pathlib.Path("x.obj").write_text("mtllib secret.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl a\nf 1 2 3\n")
    hooked = True
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if hooked and event == "open" else None)
    assert len(read_points("x.obj", 9)) == 9
    hooked = False
    assert not [name for name in opened if "secret" in name]


@pytest.mark.parametrize("name", ["xyz", "label", "starts"])
@pytest.mark.parametrize("content", [np.zeros(3), np.array([1, 1, 0, 10**9]), np.array([{}], object), None])
def test_a_damaged_cache_of_a_room_is_made_anew(name, content):
    write_rooms(pathlib.Path(), areas=(1,), points=50)
    first = Room("Area_1_office_1.npy", 13)
    xyz, label = np.array(first.xyz), first.label  # in memory, as the file is written over
    path = pathlib.Path(".sorted/Area_1_office_1") / f"{name}.npy"
    if content is None:
        path.write_bytes(b"\x93NUMPY\1\0")
    else:
        np.save(path, content)
    room = Room("Area_1_office_1.npy", 13)
    assert np.array_equal(room.xyz, xyz)
    assert np.array_equal(room.label, label)


# ---- configs and results

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{index}: &a{index} [{', '.join([f'*a{index - 1}'] * 10)}]\n" for index in range(1, 12))
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{index}: &a{index} {{<<: [{', '.join([f'*a{index - 1}'] * 10)}]}}\n" for index in range(1, 12))


@pytest.mark.parametrize("content", [
    "a: !!python/object/apply:os.system ['touch ran']", "a: !!python/name:os.system", LAUGHS, MERGES, "&a {a: *a}",
    "[" * 5000, "a: " * 3 + "1", "? [a]\n: b", "a: 2001-99-99", "a: 0x_", "a: !!int b", "a: !!bool b",
    "a: !!timestamp b", "!!map [1]", "a: " + "9" * 5000, "a: 0x" + "f" * 9000])
def test_configs(content):
    """A file that is wrong ends in one line and soon; which check finds it depends on the version of PyYAML."""
    pathlib.Path("x.yaml").write_text(content)
    start = time.monotonic()
    with pytest.raises(ConfigError, match=r"^x\.yaml(:| is not valid YAML:) ") as error:
        load_config("x.yaml")
    same_line(error)
    assert time.monotonic() - start < 20


def test_a_config_with_an_anchor_passes():
    pathlib.Path("x.yaml").write_text(yaml.safe_dump(CONFIG).replace("total_bs: 10", "total_bs: &n 10\nnpoints: *n")
                                      .replace("npoints: 64\nopt", "opt"))
    assert load_config("x.yaml").npoints == 10


@pytest.mark.parametrize("content", ["{", "[1]", '{"of": 1}', "[" * 100_000, '{"of": {}, "last": "x", "best": 1.0}'])
def test_results_of_folds(content):
    path = pathlib.Path("result.json")
    path.write_text(content)
    with pytest.raises(DataError, match=r"result.json is damaged .*: remove it, and the fold is run again"):
        few_shot.read_result(path)
    path.write_text('{"of": {}, "last": 90.0, "best": 91.0}')
    assert few_shot.read_result(path)["best"] == 91



def test_compiled_operators_of_another_user(monkeypatch, tmp_path):
    monkeypatch.delenv("ACT_OPS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert compile_kernels.cache().parent == tmp_path
    other = os.getuid() + 1
    (tmp_path / f"act_ops-{other}").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: other)
    with pytest.raises(compile_kernels.CompileError, match="belongs to another user; set ACT_OPS_CACHE"):
        compile_kernels.cache()
