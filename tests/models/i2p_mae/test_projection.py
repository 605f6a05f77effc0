"""Depth images and reading back, by hand on few points and against plain interpolation."""
import pytest
import torch
import torch.nn.functional as F

from models.i2p_mae.projection import MEAN, STD, VIEWS, Projection, read_map


def raw(images):
    """Undo the normalisation and the sigmoid: the sums of depths (V, 224, 224)."""
    gray = images * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    assert torch.allclose(gray[:, :1].expand_as(gray), gray, atol=1e-6)  # the three channels show the same
    return gray[:, 0].logit()


CORNERS = torch.tensor([[[0.0, 0.0, 1.0], [221.0, 221.0, 2.0]]])  # cells of size 1


def test_pixels_of_the_corners():
    pixels = Projection(CORNERS).pixels(CORNERS)
    assert pixels.shape == (3, 2, 2)
    assert pixels[0].tolist() == [[1, 1], [222, 222]]  # 221 cells from pixel 1 on


def test_an_image_by_hand():
    image = raw(Projection(CORNERS).depth_images())[0]
    expected = torch.zeros(224, 224)
    expected[:4, :4], expected[220:, 220:] = 1, 2  # 5 × 5 pixels around (1, 1) and (222, 222), cut at the edge …
    expected[0, :4], expected[:4, 0], expected[223, 220:], expected[220:, 223] = 2, 2, 4, 4  # … where they are added
    expected[0, 0], expected[223, 223] = 4, 8
    assert torch.allclose(image, expected, atol=2e-3)  # a sigmoid of 8 is close to 1


def test_depths_of_points_on_one_pixel_are_added():
    cloud = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.4, 0.4, 0.5], [0.4, 0.4, 0.25]]])
    projection = Projection(cloud)
    row, column = projection.pixels(cloud)[0, 2].tolist()
    image = raw(projection.depth_images())[0]
    assert torch.allclose(image[row - 2:row + 3, column - 2:column + 3], torch.tensor(0.75), atol=1e-5)
    assert image[row - 3, column].abs() < 1e-6


def test_the_shorter_side_is_centred():
    cloud = torch.tensor([[[0.0, 0.0, 0.0], [221.0, 110.5, 0.0]]])
    assert Projection(cloud).pixels(cloud)[0].tolist() == [[1, 56], [222, 166]]  # 110 cells, 56 + 166 = 2 × 111


def test_views_look_along_the_three_axes():
    cloud = torch.rand(2, 50, 3, generator=torch.Generator().manual_seed(0))
    projection = Projection(cloud)
    for view, axes in enumerate(VIEWS):
        alone = Projection(cloud[..., list(axes)])
        assert torch.equal(projection.pixels(cloud)[2 * view:2 * view + 2], alone.pixels(cloud[..., list(axes)])[:2])
        assert torch.equal(projection.depth_images()[2 * view:2 * view + 2], alone.depth_images()[:2])


def test_clouds_of_a_batch_do_not_meet():
    clouds = torch.rand(3, 40, 3, generator=torch.Generator().manual_seed(1))
    clouds = clouds * torch.tensor([1.0, 5, 0.1]).view(3, 1, 1)
    images = Projection(clouds).depth_images().unflatten(0, (3, 3))
    for index in range(3):
        assert torch.equal(Projection(clouds[index:index + 1]).depth_images(), images[:, index])


def test_a_shift_moves_no_pixel():
    cloud = torch.randint(0, 64, (1, 30, 3), generator=torch.Generator().manual_seed(2)) / 64.0
    assert torch.equal(Projection(cloud + 8).pixels(cloud + 8), Projection(cloud).pixels(cloud))


@pytest.mark.parametrize("cloud", [torch.zeros(1, 1, 3), torch.full((1, 5, 3), 2.0)])
def test_a_cloud_without_extent_goes_to_the_middle(cloud):
    projection = Projection(cloud)
    assert (projection.pixels(cloud) == 111).all()
    assert projection.depth_images().isfinite().all()


@pytest.mark.parametrize("grid", [(14, 14), (7, 16)])
def test_reading_is_bicubic_interpolation(grid):
    generator = torch.Generator().manual_seed(3)
    maps = torch.randn(3, 5, *grid, generator=generator)
    pixels = torch.randint(0, 224, (3, 20, 2), generator=generator)
    enlarged = F.interpolate(maps, size=(224, 224), mode="bicubic", align_corners=False)
    expected = torch.stack([enlarged[view][:, pixels[view, :, 0], pixels[view, :, 1]].T for view in range(3)])
    torch.testing.assert_close(read_map(maps, pixels), expected, rtol=1e-5, atol=1e-5)


def test_reading_stays_exact_under_autocast():
    maps, pixels = torch.rand(3, 1, 14, 14), torch.randint(0, 224, (3, 4, 2))
    expected = read_map(maps, pixels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(read_map(maps, pixels), expected)
