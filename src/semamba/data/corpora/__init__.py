"""Public corpora: from the folders that their archives unpack to, to a checked manifest. No torch here."""

from semamba.data.corpora import dns, folder, librispeech, reverb, voicebank
from semamba.data.corpora.layout import Corpus, Wishes

CORPORA: dict[str, Corpus] = {
    module.CORPUS.name: module.CORPUS for module in (voicebank, dns, reverb, librispeech, folder)
}

__all__ = ["CORPORA", "Corpus", "Wishes"]
