"""Sound in and out of files: any rate, any number of channels, exact length and level, in blocks. No torch here.

Samples are float32 in [-1, 1] (float files may exceed it), always (channels, n).
"""

from semamba.audio.formats import AUDIO_SUFFIXES, MEDIA, MEDIA_SUFFIXES, AudioInfo, output_format
from semamba.audio.reader import Reader, open_reader, probe, read
from semamba.audio.resample import StreamResampler, resample
from semamba.audio.writer import Writer, open_writer, remove_leftovers, write

__all__ = [
    "AUDIO_SUFFIXES",
    "MEDIA",
    "MEDIA_SUFFIXES",
    "AudioInfo",
    "Reader",
    "StreamResampler",
    "Writer",
    "open_reader",
    "open_writer",
    "output_format",
    "probe",
    "read",
    "remove_leftovers",
    "resample",
    "write",
]
