"""The config files of ACT and I2P-MAE in the form, with the keys and with the values that their authors published.

``write_act(root)`` and ``write_i2p(root)`` write them below ``root/cfgs``; they hold the full sizes.
"""
SCHEDULE = """optimizer : {{
  type: AdamW,
  kwargs: {{
  lr : {lr},
  weight_decay : {decay}
}}}}

scheduler: {{
  type: CosLR,
  kwargs: {{
    epochs: {epochs},
    initial_epochs : 10
}}}}
"""
SPLITS = """
dataset : {{
  train : {{ _base_: cfgs/dataset_configs/{data}.yaml,
            others: {{subset: 'train'}}}},
  val : {{ _base_: cfgs/dataset_configs/{data}.yaml,
            others: {{subset: 'test'}}}},
  test : {{ _base_: cfgs/dataset_configs/{data}.yaml,
            others: {{subset: 'test'}}}}}}
"""
SHAPENET = """NAME: ShapeNet
DATA_PATH: data/ShapeNet55-34/ShapeNet-55
N_POINTS: 8192
PC_PATH: data/ShapeNet55-34/shapenet_pc
"""
MODELNET = """NAME: {name}
DATA_PATH: data/{folder}
N_POINTS: 8192
NUM_CATEGORY: 40
USE_NORMALS: FALSE
"""
MODELNET40 = MODELNET.format(name="ModelNet", folder="ModelNet/modelnet40_normal_resampled")
SCAN = "data/ScanObjectNN/h5_files/main_split"
TEACHER = """visual_embed_type: 'vit_base_patch16_384',{notes}
  visual_embed_dim: 768,
  visual_embed_pos: 'after_dgcnn1',
  freeze_visual_embed: True,
  num_prompt_token: 64,
  use_deep_prompt: True,
  """
CHOICES = """
  # visual_embed_type: 'deit_base_distilled_patch16_384',
  # visual_embed_type: 'CLIP:ViT-B/16',"""
DVAE = """group_size: 32,
  num_group: 64,
  encoder_dims: {dims},
  num_tokens: 8192,
  tokens_dims: {dims},
  decoder_dims: {dims}"""
STAGE_ONE = """
dataset : {{
  train : {{ _base_: cfgs/dataset_configs/ShapeNet-55.yaml,
            others: {{subset: 'train', npoints: 1024}}}},
  val : {{ _base_: cfgs/dataset_configs/ShapeNet-55.yaml,
            others: {{subset: 'test', npoints: 1024}}}},
  test : {{ _base_: cfgs/dataset_configs/ShapeNet-55.yaml,
            others: {{subset: 'test', npoints: 1024}}}}}}

model : {{
  NAME: {name},
  {keys}
}}

total_bs : 64
step_per_update : 1
max_epoch : 300

consider_metric: CDL1
grad_norm_clip : 10

temp: {{
  start : 1,
  target: 0.0625,
  ntime : 100000
}}

kldweight: {{
  start : 0,
  target: 0.1,
  ntime : 100000
}}
"""
STAGE_TWO = """
dataset : {{
  train : {{ _base_: cfgs/dataset_configs/ShapeNet-55.yaml,
            others: {{subset: 'train', npoints: 1024, whole: True}}}},
  extra_train : {{ _base_: cfgs/dataset_configs/ModelNet40.yaml,
            others: {{subset: 'train', npoints: 1024}}}},
  val : {{ _base_: cfgs/dataset_configs/ModelNet40.yaml,
            others: {{subset: 'test', npoints: 1024}}}}}}

model : {{
  NAME: ACT_PointDistillation,
  loss: cosine,
  transformer_config: {{
    mask_ratio: 0.8,
    mask_type: 'rand',
    proj: 'linear',
    embed_dim: 384,
    encoder_dims: 384,
    depth: 12,
    drop_path_rate: 0.1,
    cls_dim: 512,
    replace_pob : 0,
    num_heads: 6,
    decoder_depth: 2,
    decoder_num_heads: 6,
    return_all_tokens: False,
    cls_loss: False,
    register_shallow_hook: 9
  }},
  dvae_config: {{
    {keys},
    ckpt: 'model_zoo/ckpt_act_dvae.pth'
  }},
}}

total_bs : 128
step_per_update : 1
max_epoch : 300
"""
CLASSIFIER = """
model : {{
  NAME: PointTransformer,
  embed_dim: 384,
  depth: 12,
  drop_path_rate: 0.1,
  cls_dim: {classes},
  num_heads: 6,
  group_size: 32,
  num_group: {groups},
  encoder_dims: 384,
  transfer_type: {transfer}
}}

npoints: {points}
total_bs : 32
step_per_update : 1
max_epoch : {epochs}
grad_norm_clip : 10
"""
# data of a fine-tuning → data set file, points, groups, classes, epochs
TUNED = {"modelnet": ("ModelNet40", 1024, 64, 40, 300), "modelnet_8k": ("ModelNet40", 8192, 512, 40, 300),
         "scan_hardest": ("ScanObjectNN_hardest", 2048, 128, 15, 300),
         "scan_objbg": ("ScanObjectNN_objectbg", 2048, 128, 15, 300),
         "scan_objonly": ("ScanObjectNN_objectonly", 2048, 128, 15, 300),
         "few_shot": ("ModelNet40FewShot", 1024, 64, 40, 150)}


def act_files():
    """Return ACT's files as a dict of names below ``cfgs`` → texts."""
    files = {f"dataset_configs/{name}.yaml": text for name, text in {
        "ShapeNet-55": SHAPENET, "ModelNet40": MODELNET40,
        "ModelNet40FewShot": MODELNET.format(name="ModelNetFewShot", folder="ModelNetFewshot"),
        "ScanObjectNN_hardest": f"NAME: ScanObjectNN_hardest\nROOT: {SCAN}\n",
        "ScanObjectNN_objectbg": f"NAME: ScanObjectNN\nROOT: {SCAN}\n",
        "ScanObjectNN_objectonly": f"NAME: ScanObjectNN\nROOT: {SCAN}_nobg\n"}.items()}
    first = SCHEDULE.format(lr=0.0005, decay=0.0005, epochs=300)
    teacher = TEACHER.format(notes=CHOICES)
    files["autoencoder/act_dvae_with_pretrained_transformer.yaml"] = first + STAGE_ONE.format(
        name="ACTPromptedDiscreteVAEwithVIT", keys=teacher + DVAE.format(dims=384))
    files["autoencoder/pointbert_dvae.yaml"] = first + STAGE_ONE.format(name="DiscreteVAE", keys=DVAE.format(dims=256))
    files["pretrain/pretrain_act_distill.yaml"] = SCHEDULE.format(lr=0.001, decay=0.05, epochs=300) + STAGE_TWO.format(
        keys=teacher + DVAE.format(dims=384))
    for name, (data, points, groups, classes, epochs) in TUNED.items():
        for transfer, ending, rate in (("full", "", 0.0005), ("linear", "_linear", 0.001), ("mlp-3", "_mlp3", 0.001)):
            folder = "few_shot" if name == "few_shot" else transfer.replace("-", "")
            stem = "fewshot_modelnet" if name == "few_shot" else f"finetune_{name}"
            files[f"finetune_classification/{folder}/{stem}{ending}.yaml"] = (
                SCHEDULE.format(lr=rate, decay=0.05, epochs=epochs) + SPLITS.format(data=data)
                + CLASSIFIER.format(classes=classes, groups=groups, transfer=transfer, points=points, epochs=epochs))
    return files


HIERARCHY = """num_groups: [512, 256, 64],
  encoder_depths: [5, 5, 5],
  encoder_dims: [96, 192, 384],
  """
MAE = """
model : {
  NAME: I2P_MAE,
  mask_ratio: 0.8,
  group_sizes: [16, 8, 8],
  """ + HIERARCHY + """local_radius: 0,
  decoder_depths: [1, 1],
  decoder_dims: [384, 192],
  decoder_up_blocks: [1, 1],
  drop_path_rate: 0.1,
  num_heads: 6,
  clip_config: {
    visual_encoder: 'ViT-B/16',
    feat_dim: 512
  },
}
"""
SVM = {"modelnet40": """
  svm : { _base_: cfgs/dataset_configs/ModelNet40_SVM.yaml,
            others: {partition: 'train'}},""", "scan_obj-bg": """
  svm : {
    train : { _base_: cfgs/dataset_configs/ScanObjectNN_OBJ_BG.yaml, others: {subset: 'train'}},
    test : { _base_: cfgs/dataset_configs/ScanObjectNN_OBJ_BG.yaml, others: {subset: 'test'}}},"""}
SHAPES = """
dataset : {
  train : { _base_: cfgs/dataset_configs/ShapeNet-55.yaml,
            others: {subset: 'train', npoints: 2048, whole: True}},
  val : { _base_: cfgs/dataset_configs/ShapeNet-55.yaml,
            others: {subset: 'test', npoints: 2048}},%s
}
"""
HIERARCHICAL = """
model : {{
  NAME: {name},{smooth}
  group_sizes: {sizes},
  """ + HIERARCHY.replace("{", "{{") + """local_radius: {radii},
  drop_path_rate: 0.1,
  num_heads: 6,
  cls_dim: {classes}
}}

npoints: {points}
total_bs : 32
step_per_update : 1
max_epoch : 300
grad_norm_clip : 10
"""


def i2p_files():
    """Return I2P-MAE's files as a dict of names below ``cfgs`` → texts."""
    files = {f"dataset_configs/{name}.yaml": text for name, text in {
        "ShapeNet-55": SHAPENET, "ModelNet40": MODELNET40,
        "ModelNet40_SVM": "NAME: ModelNet40_SVM\nDATA_DIR: data/ModelNet/modelnet40_ply_hdf5_2048\nnum_points: 1024\n",
        "ScanObjectNN_OBJ": f"NAME: ScanObjectNN\nROOT: {SCAN}_nobg\nSPLIT: OBJ\nN_POINTS: 2048\n",
        "ScanObjectNN_OBJ_BG": "NAME: ScanObjectNN\nROOT: data/ScanObjectNN\nSPLIT: OBJ_BG\nN_POINTS: 2048\n",
        "ScanObjectNN_PB": "NAME: ScanObjectNN\nROOT: data/ScanObjectNN/h5_files\nSPLIT: PB\nN_POINTS: 2048\n"}.items()}
    first = SCHEDULE.format(lr=0.001, decay=0.05, epochs=400)
    files["pre-training/i2p-mae.yaml"] = (first + SHAPES % SVM["modelnet40"] + MAE
                                          + "\ntotal_bs : 64\nstep_per_update : 1\nmax_epoch : 300\n")
    for name, svm in SVM.items():
        files[f"linear-svm/{name}.yaml"] = f"dataset : {{{svm}\n}}\n{MAE}\nnpoints: 2048\ntotal_bs : 64\n"
    for name, data, sizes, radii in (
            ("modelnet40", "ModelNet40", [48, 24, 24], [0.24, 0.48, 0.96]),
            ("scan_obj", "ScanObjectNN_OBJ", [32, 16, 16], [0.32, 0.64, 1.28]),
            ("scan_obj-bg", "ScanObjectNN_OBJ_BG", [32, 16, 16], [0.32, 0.64, 1.28]),
            ("scan_pb", "ScanObjectNN_PB", [32, 16, 16], [0.48, 0.96, 1.92])):
        modelnet = name == "modelnet40"
        files[f"fine-tuning/{name}.yaml"] = (
            SCHEDULE.format(lr=0.0005, decay=0.05, epochs=300) + SPLITS.format(data=data) + HIERARCHICAL.format(
                name=f"I2P_MAE_{'ModelNet40' if modelnet else 'ScanObjectNN'}", sizes=sizes, radii=radii,
                smooth="\n  smooth: 0.2," if modelnet else "", classes=40 if modelnet else 15,
                points=1024 if modelnet else 2048))
    return files


def write(root, files):
    """Write ``files`` below ``root/cfgs``."""
    for name, text in files.items():
        path = root / "cfgs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
