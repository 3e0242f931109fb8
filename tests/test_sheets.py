"""Grids of images to look at."""

import torch
from conftest import tiny_model

from hf_vae.commands.draw import sheet
from hf_vae.sheets import STDS, std_sheet


def test_a_sheet_has_a_row_for_each_standard_deviation(family, tmp_path):
    model = tiny_model(family)
    picture = std_sheet(model, seed=3)
    assert picture.size == (8 * 28, len(STDS) * 28) and STDS == (0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2)
    noise = torch.randn(8, 8, generator=torch.Generator().manual_seed(3))
    expected = model.decode(2 * noise[:1]).sample.clamp(-1, 1)[0, :, 14, 14]
    found = torch.tensor(picture.getpixel((14, 7 * 28 + 14))) / 127.5 - 1
    torch.testing.assert_close(found, expected.detach(), atol=0.01, rtol=0)
    model.save_pretrained(tmp_path / "model")
    sheet(str(tmp_path / "model"), output=tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").is_file()
