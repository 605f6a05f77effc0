"""The pre-training step of I2P-MAE as one would first write it, cloud after cloud, to compare the batched one with."""
import copy
import functools

import torch
import torch.nn.functional as F

from extensions.ops import furthest_point_sample, knn
from models.build import build_model_from_cfg
from models.i2p_mae.encoder import OUTSIDE
from models.i2p_mae.model import I2P_MAE, chamfer_l2
from models.i2p_mae.projection import MEAN, SIZE, STD, VIEWS
from models.layers.patches import gather
from models.layers.pointwise import pointwise
from models.masking import guided_mask
from tools.benchmarks.timing import median_ms, surfaces
from tools.engine.run import AMP_DTYPES

POINTS = 2048
MODEL = {}  # keys that are not at their published value, of the model …
IMAGE_MODEL = {}  # … and of timm's builder of the image model


def measure_i2p(args, device):
    """Return the times of a training step, batched and looped, and of the image model alone, which both contain."""
    keys = {"visual_encoder": args.encoder, "feat_dim": args.feat_dim, "pretrained": False, "kwargs": IMAGE_MODEL}
    model = build_model_from_cfg({"NAME": "I2P_MAE", "clip_config": keys, **MODEL}).to(device).train()
    points = surfaces(args.batch, POINTS, device)

    dtype = AMP_DTYPES.get(args.amp)
    autocast = functools.partial(torch.autocast, device.type, dtype, enabled=dtype is not None)

    def train_step(kind):
        model.zero_grad(set_to_none=True)
        with autocast():
            loss = kind(points)["loss"]
        loss.backward()

    images = torch.randn(len(VIEWS) * args.batch, 3, SIZE, SIZE, device=device)
    with torch.no_grad(), autocast():
        image_ms = median_ms(lambda: model._image_model(images), device)
    rows = {"batched": median_ms(lambda: train_step(model), device),
            "looped": median_ms(lambda: train_step(looped(model)), device)}
    return {"encoder": args.encoder, "batch": args.batch, "amp": args.amp, "image_model_ms": round(image_ms, 1),
            **{f"{name}_ms": round(time, 1) for name, time in rows.items()},
            "times_as_long": round(rows["looped"] / rows["batched"], 2),
            "times_as_long_without_image_model":
                round((rows["looped"] - image_ms) / (rows["batched"] - image_ms), 2)}


def looped(model):
    """Return the looped form of an I2P_MAE, on the same weights."""
    twin = copy.copy(model)
    twin.__class__ = LoopedI2P
    return twin


class LoopedI2P(I2P_MAE):
    """Loops over clouds and views; furthest point sampling anew for every scale; feature maps enlarged as a whole."""

    def forward(self, points, mask=None):
        centers, indices, finer = [], [], points
        for number, size in zip(self.num_groups, self.group_sizes, strict=True):
            center = gather(finer, furthest_point_sample(finer, number))
            centers.append(center)
            indices.append(knn(finer, center, size)[1])
            finer = center
        seen = [look(self._image_model, cloud) for cloud in points]
        saliency = torch.stack([read(attention.unsqueeze(1), pixels_of(frames, center)).mean(0).squeeze(-1)
                                for (_, attention, frames), center in zip(seen, centers[-1], strict=True)])
        mask = guided_mask(saliency, int(self.mask_ratio * saliency.shape[1])) if mask is None else mask
        masks = looped_masks(mask, indices, self.num_groups)
        tokens = self.encode(gather(points, indices[0]) - centers[0][:, :, None], centers, indices, masks)
        decoded = self.decode(tokens, centers, masks)

        patches = gather(centers[0], indices[1]) - centers[1][:, :, None]
        prediction = pointwise(self.rec_head_3d, decoded[masks[1]]).unflatten(-1, (-1, 3))
        loss_3d = chamfer_l2(prediction, patches[masks[1]])
        targets = []
        for index, (maps, _, frames) in enumerate(seen):
            features = read(maps, pixels_of(frames, centers[0][index])).transpose(0, 1).flatten(1)  # M 3C
            targets.append(features[indices[1][index]][~masks[1][index]].flatten(1))
        loss_2d = F.mse_loss(pointwise(self.rec_head_2d, decoded[~masks[1]]), torch.cat(targets))
        return {"loss": loss_3d + loss_2d, "loss_3d": loss_3d, "loss_2d": loss_2d}

    def encode(self, neighborhood, centers, indices, masks):
        """Return the tokens (B, G, C) of each scale, masked ones untouched by the blocks."""
        encoder, outputs = self.h_encoder, []
        for scale, (center, mask) in enumerate(zip(centers, masks, strict=True)):
            given = neighborhood if scale == 0 else gather(outputs[-1], indices[scale])
            tokens = embed(encoder.token_embed[scale], given)
            length = int((~mask).sum(1).max())
            picked = tokens.new_zeros(len(tokens), length, tokens.shape[-1])
            places = center.new_zeros(len(tokens), length, 3)
            bias = tokens.new_full((len(tokens), 1, length, length), OUTSIDE)
            for index, hidden in enumerate(mask):
                count = int((~hidden).sum())
                picked[index, :count] = tokens[index][~hidden]
                places[index, :count] = center[index][~hidden]
                bias[index, :, :count, :count] = 0
            encoded, _ = encoder.encoder_blocks[scale](picked, encoder.encoder_pos_embeds[scale](places), bias=bias)
            out = tokens.clone()
            for index, hidden in enumerate(mask):
                out[index, ~hidden] = encoded[index, :int((~hidden).sum())]
            outputs.append(out)
        return outputs


def embed(encoder, patches):
    """Return the tokens (B, G, C') of patches (B, G, K, C): the layers of a PatchEncoder one after the other."""
    x = encoder.first_conv(patches.flatten(0, 1).transpose(1, 2))  # BG 256 K
    x = torch.cat([x.max(-1, keepdim=True).values.expand_as(x), x], 1)
    return encoder.second_conv(x).max(-1).values.unflatten(0, patches.shape[:2])


def looped_masks(mask, indices, num_groups):
    """Return the masks of all scales, finest first, cloud by cloud."""
    masks = [mask]
    for index, number in zip(indices[:0:-1], num_groups[-2::-1], strict=True):
        finer = torch.ones(len(mask), number, dtype=torch.bool, device=mask.device)
        for cloud, hidden in enumerate(masks[0]):
            finer[cloud, index[cloud][~hidden].flatten()] = False
        masks.insert(0, finer)
    return masks


def look(image_model, cloud):
    """Return feature maps (3, C, h, w) and attention (3, h, w) of the views of a cloud (N, 3), and their frames."""
    images, frames = [], []
    for axes in VIEWS:
        image, frame = depth_image(cloud[:, list(axes)])
        images.append(image)
        frames.append(frame)
    with torch.no_grad():
        maps, attention = image_model(torch.stack(images))
    return maps, attention, frames


def depth_image(view):
    """Return the image (3, 224, 224) of a view (N, 3), and where its grid lies: lowest corner, cell, first pixel."""
    lowest = view[:, :2].min(0).values
    cell = (view[:, :2].max(0).values - lowest).max() / (SIZE - 3)
    grid = ((view[:, :2] - lowest) / cell).floor()
    first = SIZE // 2 - 1 - (grid.max(0).values / 2).floor()
    pixel = (grid + first).long()
    image = view.new_zeros(SIZE, SIZE)
    for row in range(-2, 3):
        for column in range(-2, 3):
            place = ((pixel + pixel.new_tensor([row, column])).clamp(0, SIZE - 1)).unbind(-1)
            image.index_put_(place, view[:, 2], accumulate=True)
    mean, std = (view.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (image.sigmoid() - mean) / std, (lowest, cell, first)


def pixels_of(frames, points):
    """Return the pixels (3, M, 2) of points (M, 3) in the views whose frames these are."""
    return torch.stack([(((points[:, list(axes)[:2]] - lowest) / cell).floor() + first).long()
                        for axes, (lowest, cell, first) in zip(VIEWS, frames, strict=True)])


def read(maps, pixels):
    """Return maps (3, C, h, w), enlarged to the images' size, at pixels (3, M, 2): (3, M, C)."""
    enlarged = F.interpolate(maps, size=(SIZE, SIZE), mode="bicubic", align_corners=False)
    return torch.stack([image[:, place[:, 0], place[:, 1]].T for image, place in zip(enlarged, pixels, strict=True)])
