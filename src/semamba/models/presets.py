"""Named configurations: the rows of the paper's tables and our own models.

Sizes are pinned by tests/models/test_presets.py; `semamba models` prints them with costs.
"""

from __future__ import annotations

from dataclasses import replace

from semamba.models.advanced import AdvancedConfig
from semamba.models.basic import BasicConfig
from semamba.models.causal import CausalConfig
from semamba.models.mixers import MixerConfig
from semamba.spectrum import StftConfig

# Causal basic models are framed causally as well, so that they stream; bins, window and hop stay the same.
_CAUSAL_LOG = StftConfig(n_fft=512, hop_length=256, window="hann", framing="causal", compression="log1p")
_WIDE_ATTENTION = MixerConfig("transformer", heads=8, head_dim=64, feedforward=2)

PRESETS: dict[str, CausalConfig | BasicConfig | AdvancedConfig] = {
    # Ours: real time on one CPU core.
    "causal-small": CausalConfig(),
    "causal-medium": CausalConfig(d_model=72, heads=6, blocks=6),
    # Table 1 of the paper.
    "basic-causal-mamba": BasicConfig(stft=_CAUSAL_LOG, mixer=MixerConfig("mamba", bidirectional=False, expand=2)),
    "basic-mamba": BasicConfig(mixer=MixerConfig("mamba", expand=4)),
    "basic-transformer-causal": BasicConfig(
        stft=_CAUSAL_LOG, blocks=8, mixer=replace(_WIDE_ATTENTION, bidirectional=False)
    ),
    "basic-transformer": BasicConfig(blocks=8, mixer=_WIDE_ATTENTION),
    "basic-lstm-causal": BasicConfig(stft=_CAUSAL_LOG, mixer=MixerConfig("lstm", bidirectional=False)),
    "basic-lstm": BasicConfig(mixer=MixerConfig("lstm")),
    # Tables 2 and 3 of the paper; the Transformer is ours, with the Conformer's heads and feed-forward size.
    "advanced-mamba": AdvancedConfig(mixer=MixerConfig("mamba", expand=4)),
    "advanced-mamba-uni": AdvancedConfig(mixer=MixerConfig("mamba", bidirectional=False, expand=2)),
    "advanced-conformer": AdvancedConfig(mixer=MixerConfig("conformer")),
    "advanced-transformer": AdvancedConfig(mixer=MixerConfig("transformer")),
}
