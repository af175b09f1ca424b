"""Scanners: each archive's own layout becomes units with the right split, speaker, text and partner."""

from __future__ import annotations

from pathlib import Path

import pytest

from semamba.data.corpora import dns, folder, librispeech, reverb, voicebank
from semamba.data.corpora.layout import PAIR, Layout, Wishes, choose
from semamba.errors import SemambaError
from tests.data.corpora.conftest import Write, noisy, voice

ANY = Wishes()


def splits(layout: Layout) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for unit in layout.units:
        found.setdefault(unit.split, set()).add(unit.name)
    return found


def voicebank_tree(write: Write, speakers: str = "p226 p286 p287") -> None:
    for number, speaker in enumerate(speakers.split()):
        clean = voice(number, rate=48000)
        write(f"clean_trainset_28spk_wav/{speaker}_001.wav", clean, 48000)
        write(f"noisy_trainset_28spk_wav/{speaker}_001.wav", noisy(clean), 48000)
    clean = voice(50, rate=48000)
    write("clean_testset_wav/p232_001.wav", clean, 48000)
    write("noisy_testset_wav/p232_001.wav", noisy(clean), 48000)


def test_voicebank_holds_out_its_speakers_and_reads_texts(write: Write, source: Path) -> None:
    voicebank_tree(write)
    (source / "trainset_28spk_txt").mkdir()
    (source / "trainset_28spk_txt/p226_001.txt").write_text("Please call\nStella.\n")
    layout = voicebank.scan(source, ANY)
    assert splits(layout) == {"train": {"p226_001"}, "valid": {"p286_001", "p287_001"}, "test": {"p232_001"}}
    train = next(unit for unit in layout.units if unit.split == "train")
    assert (train.kind, train.speaker, train.text) == (PAIR, "p226", "Please call Stella.")
    assert train.targets == ("train/clean/p226_001.flac", "train/noisy/p226_001.flac")
    assert splits(voicebank.scan(source, Wishes(valid_speakers=("p226",))))["valid"] == {"p226_001"}
    with pytest.raises(SemambaError, match="'p999' is not in the training set; it has p226"):
        voicebank.scan(source, Wishes(valid_speakers=("p999",)))


def test_voicebank_tells_what_is_missing(write: Write, source: Path) -> None:
    voicebank_tree(write, "p226")
    write("noisy_trainset_28spk_wav/p226_002.wav", voice(3))
    (source / "noisy_testset_wav/p232_001.wav").unlink()
    (source / "noisy_testset_wav").rmdir()
    (source / "noisy_testset_wav.zip").write_bytes(b"PK")
    faults = "; ".join(voicebank.scan(source, ANY).faults)
    assert "clean_trainset_28spk_wav holds 1 of 11,572 files" in faults
    assert "noisy_trainset_28spk_wav/p226_002.wav without partner" in faults
    assert "the folder noisy_testset_wav is missing (noisy_testset_wav.zip lies there: unpack it)" in faults
    assert "no files of the validation speaker p286" in faults


def test_librispeech_reads_transcripts_and_splits_by_subset(write: Write, source: Path) -> None:
    for subset, speaker in (("train-clean-100", 19), ("dev-clean", 84), ("test-clean", 61)):
        chapter = f"LibriSpeech/{subset}/{speaker}/7"
        write(f"{chapter}/{speaker}-7-0000.flac", voice(speaker))
        (source / chapter / f"{speaker}-7.trans.txt").write_text(f"{speaker}-7-0000 SO IT WAS\n{speaker}-7-0001 LOST\n")
    for place in (source, source / "LibriSpeech"):
        layout = librispeech.scan(place, ANY)
        assert splits(layout) == {"train": {"19-7-0000"}, "valid": {"84-7-0000"}, "test": {"61-7-0000"}}
        assert {unit.text for unit in layout.units} == {"SO IT WAS"}
        assert "train-clean-100 holds 1 of 28,539 files" in layout.faults


def test_librispeech_without_dev_holds_out_training_speakers(write: Write, source: Path) -> None:
    for speaker in range(10, 15):
        write(f"train-clean-100/{speaker}/1/{speaker}-1-0000.flac", voice(speaker))
    layout = librispeech.scan(source, ANY)
    assert {split: len(names) for split, names in splits(layout).items()} == {"train": 4, "valid": 1}


def test_dns_finds_readers_noise_rooms_and_pairs_by_number(write: Write, source: Path) -> None:
    for reader in range(3):
        write(f"datasets/clean/read_speech/book_0_chp_1_reader_0{reader}_2.wav", voice(reader))
        write(f"datasets/noise/clip{reader}.wav", voice(10 + reader))
    write("datasets/impulse_responses/SLR28/RIRS_NOISES/real_rirs/type1_rir_a.wav", voice(20))
    write("datasets/impulse_responses/SLR28/RIRS_NOISES/real_rirs/type1_noise_a.wav", voice(21))
    write("datasets/impulse_responses/SLR28/RIRS_NOISES/pointsource_noises/n.wav", voice(22))
    clean = voice(30)
    test = "datasets/test_set/synthetic/no_reverb"
    write(f"{test}/clean/clean_fileid_7.wav", clean)
    write(f"{test}/noisy/clnsp1_train_69005_1_snr15_tl-21_fileid_7.wav", noisy(clean))
    layout = dns.scan(source, ANY)
    kinds = {kind: [u for u in layout.units if u.kind == kind] for kind in ("speech", "noise", "rir", PAIR)}
    assert {unit.speaker for unit in kinds["speech"]} == {"reader-00", "reader-01", "reader-02"}
    assert sorted(unit.split for unit in kinds["speech"]) == ["train", "train", "valid"]
    assert len(kinds["noise"]) == 3 and [unit.source.name for unit in kinds["rir"]] == ["type1_rir_a.wav"]
    assert [(u.split, u.group, u.name) for u in kinds[PAIR]] == [("test", "no_reverb", "fileid_7")]
    assert "synthetic/no_reverb/clean holds 1 of 150 files" in layout.faults


def test_reverb_pairs_channel_one_with_its_source(write: Write, source: Path) -> None:
    for part, utterance in (("dt", "c3l"), ("et", "c30")):
        root = f"REVERB_WSJCAM0_{part}/data"
        write(f"{root}/cln_test/primary_microphone/si_{part}_1/{utterance}/{utterance}c0201.wav", voice(1))
        for side in ("near", "far"):
            for channel in (1, 2):
                name = f"{utterance}c0201_ch{channel}.wav"
                write(f"{root}/{side}_test/primary_microphone/si_{part}_1/{utterance}/{name}", voice(1))
    write("MC_WSJ_AV_Eval/audio/stat/T10/array1/5k/AMI_WSJ21-Array1-1_T10c0201.wav", voice(2))
    layout = reverb.scan(source, ANY)
    assert sorted((u.split, u.group, u.name, u.speaker) for u in layout.units) == [
        ("test", "far", "c30c0201", "c30"),
        ("test", "near", "c30c0201", "c30"),
        ("valid", "far", "c3lc0201", "c3l"),
        ("valid", "near", "c3lc0201", "c3l"),
    ]
    assert all(unit.noisy and unit.noisy.stem.endswith("_ch1") for unit in layout.units)
    assert any("without clean reference" in note for note in layout.notes) and not layout.faults
    write("REVERB_WSJCAM0_tr/data/mc_train/primary_microphone/si_tr/c02/c02c0201_ch1.wav", voice(3))
    write("REVERB_WSJCAM0_tr/data/mc_train_clean/primary_microphone/si_tr/c02/c02c0201.wav", voice(3))
    layout = reverb.scan(source, ANY)
    assert "c02c0201" in splits(layout)["train"] and "1 of 7,861 files" in "; ".join(layout.faults)


def test_folder_of_pairs_by_speaker_or_by_file(write: Write, source: Path) -> None:
    for speaker in ("anna", "ben", "carl"):
        for side in ("clean", "noisy"):
            write(f"{side}/{speaker}/1.wav", voice(1))
    layout = folder.scan(source, ANY)
    assert len(splits(layout)["valid"]) == 1 and len(splits(layout)["train"]) == 2
    assert layout.notes[0].startswith("held out for validation, speakers: ")
    assert splits(folder.scan(source, Wishes(valid_speakers=("ben",))))["valid"] == {"ben-1"}
    for name in ("a", "b"):
        for side in ("clean", "noisy"):
            write(f"train/{side}/{name}.wav", voice(1))
    layout = folder.scan(source, ANY)  # now train/ counts, and what lies beside it does not
    assert {split: len(names) for split, names in splits(layout).items()} == {"train": 1, "valid": 1}


def test_folder_of_material_to_mix(write: Write, source: Path) -> None:
    for number in range(4):
        write(f"clean/{number}.wav", voice(number))
        write(f"noise/{number}.wav", voice(10 + number))
    write("rir/room.wav", voice(20))
    (source / "clean/._0.wav").write_bytes(b"what macOS leaves behind")
    layout = folder.scan(source, ANY)
    assert sorted((u.split, u.kind) for u in layout.units).count(("valid", "noise")) == 1
    assert sorted((u.split, u.kind) for u in layout.units).count(("valid", "speech")) == 1
    assert len(layout.units) == 9 and not layout.faults


def test_choice_is_steady_and_never_everything() -> None:
    names = [f"s{number}" for number in range(50)]
    assert choose(names, 0.1) == choose(reversed(names), 0.1) and len(choose(names, 0.1)) == 5
    assert choose(["only"], 0.5) == set() and len(choose(["a", "b"], 0.01)) == 1 and choose(names, 0) == set()
