"""Published figures to the printed digit, and a count that can be done by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semamba.models.causal import CausalConfig
from semamba.models.complexity import count_macs, profile
from semamba.models.layers import InstanceNorm
from semamba.models.mamba import Mamba, MambaConfig
from semamba.models.presets import PRESETS

# Tables 1-3 of the paper, in 10^9.
PUBLISHED = {
    "basic-causal-mamba": "0.760",
    "basic-mamba": "1.062",
    "basic-transformer": "2.258",
    "basic-transformer-causal": "2.258",
    "advanced-mamba": "65.457",
    "advanced-mamba-uni": "53.090",
    "advanced-conformer": "74.289",
}
HONEST = {
    "basic-causal-mamba": 0.907,
    "basic-mamba": 1.652,
    "basic-transformer": 2.766,
    "advanced-mamba": 88.100,
    "advanced-mamba-uni": 57.991,
    "advanced-conformer": 83.942,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_papers_count(name: str) -> None:
    assert f"{profile(PRESETS[name]).paper_macs / 1e9:.3f}" == PUBLISHED[name]


@pytest.mark.parametrize("name", HONEST)
def test_the_honest_count(name: str) -> None:
    assert profile(PRESETS[name]).honest_macs / 1e9 == pytest.approx(HONEST[name], abs=6e-4)


@pytest.mark.parametrize(("name", "gigas"), [("advanced-mamba", 81.8), ("advanced-mamba-uni", 56.4)])
def test_the_honest_count_before_the_scan(name: str, gigas: float) -> None:
    parts = profile(PRESETS[name]).parts
    assert (parts["product"] + parts["convolution"]) / 1e9 == pytest.approx(gigas, abs=0.05)


def test_per_second_and_latency() -> None:
    causal = profile(PRESETS["causal-small"])
    assert causal.latency_ms == 32 and causal.seconds == 4
    assert causal.honest_macs_per_second == causal.honest_macs / 4
    assert causal.honest_macs_per_second < 300e6
    assert profile(PRESETS["advanced-mamba"]).latency_ms is None


def test_the_causal_model_by_hand() -> None:
    cfg = PRESETS["causal-small"]
    assert isinstance(cfg, CausalConfig) and cfg.frequency == "attention"
    bands, groups, c, d = cfg.bands, cfg.sub_bands, cfg.channels, cfg.d_model
    inner, rank = cfg.expand * d, -(-d // 16)
    kernel = 2 * cfg.stride
    per_frame = bands * (kernel * 3 * c + 2 * cfg.layers * 3 * c * c + c * kernel * 2)
    per_frame += groups * bands * (c + d) + (groups + bands) * c * d  # the two band maps
    mamba = inner * (3 * d + 2 * rank + 2 * cfg.d_state + 4 + 3 * cfg.d_state)
    per_frame += cfg.blocks * (groups * mamba + groups * 4 * d * d + 2 * groups * groups * d)
    level = 2 * 250 * 250  # two running sums, each one triangular product over the 250 frames
    assert profile(cfg).honest_macs == 250 * per_frame + level


def test_cost_grows_in_proportion_to_length_without_attention() -> None:
    short, long = (profile(PRESETS["basic-causal-mamba"], frames).honest_macs for frames in (50, 100))
    assert long == 2 * short


class Everything(nn.Module):
    """One of each kind of work, on (2, 5, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 6)
        self.conv = nn.Conv1d(6, 4, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose1d(4, 8, 2, stride=2)
        self.norm = nn.LayerNorm(8)
        self.mamba = Mamba(MambaConfig(8, expand=2, d_state=3))
        self.lstm = nn.LSTM(8, 7, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.linear(x).transpose(1, 2))  # (2, 4, 5)
        y = self.norm(self.up(y).transpose(1, 2))  # (2, 10, 8)
        y = F.scaled_dot_product_attention(y, y, y)
        y, _ = self.mamba(y)
        return self.lstm(y)[0]


def test_count_by_hand() -> None:
    model = Everything().to("meta").eval()
    paper, honest = count_macs(model, torch.empty(2, 5, 8, device="meta"))
    conv, up_in, up_out = 2 * 4 * 5 * 3 * 3, 2 * 4 * 5 * 8 * 2, 2 * 8 * 10 * 4 * 2
    inner, rank, state = 16, 1, 3
    mamba = 20 * inner * (2 * 8 + rank + 2 * state + rank + 8)
    assert honest["convolution"] == conv + up_in + 20 * inner * 4
    assert honest["product"] == 10 * 8 * 6 + 2 * (2 * 10 * 10 * 8) + mamba
    assert honest["scan"] == 20 * inner * state * 3
    assert honest["recurrence"] == 20 * 2 * 4 * 7 * (8 + 7)
    thop_mamba = 2 * (13 * inner * 4 + 10 * inner * (rank + 2 * state + 8))
    thop_lstm = 20 * 2 * (4 * ((8 + 7) * 7 + 3 * 7) + 4 * 7)
    assert paper == 10 * 8 * 6 + conv + up_out + 4 * 160 + thop_mamba + thop_lstm


def test_counting_leaves_the_model_as_it_was() -> None:
    model = Everything().eval()
    x = torch.randn(2, 5, 8)
    before = model(x)
    count_macs(model, x)
    torch.testing.assert_close(model(x), before)
    assert not any(module._forward_hooks for module in model.modules())


def test_instance_norm_counts_four_for_each_element() -> None:
    assert count_macs(InstanceNorm(3).to("meta"), torch.empty(2, 4, 5, 3, device="meta"))[0] == 4 * 2 * 4 * 5 * 3
