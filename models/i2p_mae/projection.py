"""Clouds as depth images of three views, and image maps read back at points (I2P-MAE, section 3.2).

View-major means that all clouds of the first view come first, then all of the second: row ``view * B + cloud``.
"""
import torch
import torch.nn.functional as F

SIZE = 224  # pixels a side
VIEWS = ((0, 1, 2), (2, 0, 1), (1, 2, 0))  # the axes that become an image's row, its column and the depth
SPREAD = 2  # a point covers the pixels up to this far from its own: 5 × 5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, per colour channel


def views(points):
    """Return clouds (B, N, 3) as seen along the three axes: (3B, N, 3), view-major."""
    return torch.cat([points[..., list(axes)] for axes in VIEWS])


class Projection:
    """The way between clouds (B, N, 3) and the pixels of their depth images, for all views at once.

    The larger extent of the two image axes is cut into 221 cells, so that with the spread of every point the object
    fills the image; it is centred along the other axis. Coordinates may have any unit and any offset.
    """

    def __init__(self, points):
        self.points = views(points.float())  # V N 3, where V is 3B
        xy = self.points[..., :2]
        self.lowest = xy.amin(1, keepdim=True)  # V 1 2
        extent = xy.amax(1, keepdim=True) - self.lowest
        cell = extent.amax(-1, keepdim=True) / (SIZE - 1 - SPREAD)  # V 1 1
        self.cell = cell.clamp_min(torch.finfo(cell.dtype).tiny)  # a cloud without extent goes to one pixel
        last = ((xy - self.lowest) / self.cell).floor().amax(1, keepdim=True)
        self.first = SIZE // 2 - 1 - (last / 2).floor()  # V 1 2, the pixel of cell 0 that centres the object
        self.own = self._pixels(xy)  # V N 2

    def _pixels(self, xy):
        return (((xy - self.lowest) / self.cell).floor() + self.first).long()

    def pixels(self, points):
        """Return row and column (3B, M, 2) int64 of points (B, M, 3) of the clouds, view-major.

        What lies outside a cloud's extent goes to the pixel at the edge.
        """
        return self._pixels(views(points.float())[..., :2]).clamp(0, SIZE - 1)

    def depth_images(self):
        """Return the images (3B, 3, 224, 224): ``shades`` in ImageNet's normalisation."""
        image = self.shades().unsqueeze(1)
        mean, std = (image.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        return (image - mean) / std

    def shades(self):
        """Return how bright the pixels (3B, 224, 224) are: the sigmoid of the sum of depths.

        What a point would cover beyond an edge is added to the pixels at the edge.
        """
        step = torch.arange(-SPREAD, SPREAD + 1, device=self.points.device)
        row, column = (self.own[..., None] + step).clamp(0, SIZE - 1).unbind(-2)  # V N 5 each
        covered = (row[..., :, None] * SIZE + column[..., None, :]).flatten(1)  # V N25
        depth = self.points[..., 2:].expand(-1, -1, len(step) ** 2).flatten(1)  # V N25
        image = depth.new_zeros(len(depth), SIZE * SIZE).scatter_add_(1, covered, depth)
        return image.sigmoid().view(-1, SIZE, SIZE)


def read_map(maps, pixels):
    """Read maps (V, C, h, w), enlarged to 224 × 224 by bicubic interpolation, at pixels (V, M, 2): (V, M, C) float32.

    Interpolation is linear, so the enlarged maps, which would be 200 times as large, are not formed: a pixel's value is
    a product of its interpolation weights along each axis with the map.
    """
    with torch.autocast(maps.device.type, enabled=False):
        maps = maps.float()
        rows, columns = (enlarging_weights(length, maps)[pixels[..., axis]]  # V M h and V M w
                         for axis, length in enumerate(maps.shape[-2:]))
        weights = (rows[..., :, None] * columns[..., None, :]).flatten(2)  # V M hw
        return weights @ maps.flatten(2).transpose(1, 2)


def enlarging_weights(length, like):
    """Return the weights (224, length) of bicubic interpolation of ``length`` values to 224, where ``like`` is."""
    unit = torch.eye(length, device=like.device)[None, None]
    return F.interpolate(unit, size=(SIZE, length), mode="bicubic", align_corners=False)[0, 0]
